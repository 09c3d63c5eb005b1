// Which Gaussians are visible at a time, front to back. Runs in a worker; where none can be made, in the page.
"use strict";

const HALF = (() => {  // float16 bits to numbers
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    table[bits] = sign * (exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15));
  }
  return table;
})();

const FIELDS = 9;  // mean (3), velocity (3), time mean, 1 / (2 deviation^2), log of opacity * 255

// records: Uint32Array, 8 words a Gaussian; header: what the whole numbers are fractions of (packing.py).
function createSorter(records, header) {
  const count = records.length / 8;
  const fields = new Float32Array(count * FIELDS);
  for (let i = 0; i < count; i++) {
    const w = i * 8, f = i * FIELDS;
    const whole = [records[w] & 65535, records[w] >>> 16, records[w + 1] & 65535];
    for (let k = 0; k < 3; k++) fields[f + k] = header.boxLow[k] + header.boxSize[k] * whole[k] / 65535;
    fields[f + 3] = HALF[records[w + 2] & 65535];
    fields[f + 4] = HALF[records[w + 2] >>> 16];
    fields[f + 5] = HALF[records[w + 3] & 65535];
    fields[f + 6] = header.timeLow + header.timeSize * (records[w + 1] >>> 16) / 65535;
    const deviation = HALF[records[w + 3] >>> 16];
    fields[f + 7] = 0.5 / (deviation * deviation);
    fields[f + 8] = Math.log(HALF[records[w + 6] >>> 16] * 255);
  }

  const BITS = 11, BUCKETS = 1 << BITS, LEVELS = 2 ** (2 * BITS) - 1;
  const visible = new Uint32Array(count), depths = new Float32Array(count);
  const keys = new Uint32Array(count), halfway = new Uint32Array(count);
  const low = new Uint32Array(BUCKETS), high = new Uint32Array(BUCKETS);

  // The visible Gaussians' indices at model time `time`, by depth = axis . mean + offset; writes into `order`.
  // Two passes of a counting sort over 22 bits of depth: stable, so equal depths keep the file's order.
  function sort(time, axis, offset, order) {
    const [ax, ay, az] = axis;
    let found = 0, nearest = Infinity, farthest = -Infinity;
    for (let i = 0, f = 0; i < count; i++, f += FIELDS) {
      const elapsed = time - fields[f + 6];
      if (fields[f + 8] < elapsed * elapsed * fields[f + 7]) continue;  // opacity below 1/255
      const depth = ax * (fields[f] + fields[f + 3] * elapsed) + ay * (fields[f + 1] + fields[f + 4] * elapsed)
        + az * (fields[f + 2] + fields[f + 5] * elapsed) + offset;
      if (!(depth > 0.01)) continue;  // the rasterizer's near plane
      if (depth < nearest) nearest = depth;
      if (depth > farthest) farthest = depth;
      visible[found] = i;
      depths[found++] = depth;
    }
    const scale = farthest > nearest ? LEVELS / (farthest - nearest) : 0;
    low.fill(0);
    high.fill(0);
    for (let i = 0; i < found; i++) {
      const key = (depths[i] - nearest) * scale >>> 0;
      keys[i] = key;
      low[key & (BUCKETS - 1)]++;
      high[key >>> BITS]++;
    }
    for (let k = 0, a = 0, b = 0; k < BUCKETS; k++) {
      const inLow = low[k], inHigh = high[k];
      low[k] = a;
      high[k] = b;
      a += inLow;
      b += inHigh;
    }
    for (let i = 0; i < found; i++) halfway[low[keys[i] & (BUCKETS - 1)]++] = i;
    for (let i = 0; i < found; i++) {
      const place = halfway[i];
      order[high[keys[place] >>> BITS]++] = visible[place];
    }
    return found;
  }
  return { count, sort };
}

// In a worker: the first message brings the records, each later one asks for an order.
if (typeof window === "undefined") {
  let sorter = null;
  self.onmessage = ({ data }) => {
    if (data.records) {
      sorter = createSorter(data.records, data.header);
      return;
    }
    const order = data.order || new Uint32Array(sorter.count);
    const started = performance.now();
    const found = sorter.sort(data.time, data.axis, data.offset, order);
    self.postMessage({ order, found, milliseconds: performance.now() - started, id: data.id }, [order.buffer]);
  };
}
