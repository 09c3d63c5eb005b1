// Asks the sorter for orders, one at a time, in a worker if there can be one.

class Sorting {
  // take: called with {order, found, milliseconds}; order stays valid until the next request.
  constructor(records, header, take) {
    Object.assign(this, { take, busy: false, asked: "", done: "", order: null });
    const numbers = { boxLow: header.boxLow, boxSize: header.boxSize, timeLow: header.timeLow, timeSize: header.timeSize };
    try {
      const source = new Blob([byId("sorter").textContent], { type: "text/javascript" });
      const address = URL.createObjectURL(source);
      this.worker = new Worker(address);
      this.worker.onmessage = ({ data }) => this.answer(data);
      this.worker.onerror = () => this.useThePage(records, numbers);
      this.worker.postMessage({ records, header: numbers });  // a copy: the page may need its own
    } catch (error) {  // a browser that allows no worker from a page on disk
      this.useThePage(records, numbers);
    }
  }

  useThePage(records, numbers) {
    this.worker = null;
    this.sorter = createSorter(records, numbers);
    this.forget();
  }

  // As if nothing had been sorted yet.
  forget() { Object.assign(this, { busy: false, asked: "", done: "" }); }

  // Asks for the order of a time in [0, 1] and a view unless it is there or on its way; whether it is there.
  request(time, view) {
    const axis = view.forward, offset = -dot(axis, view.position), wanted = [time, ...axis, offset].join();
    if (wanted === this.done) return true;
    if (this.busy) return false;
    this.busy = true;
    this.asked = wanted;
    const question = { time: 2 * time - 1, axis, offset, order: this.order };
    if (this.worker) {
      this.worker.postMessage(question, this.order ? [this.order.buffer] : []);
      this.order = null;
      return false;
    }
    const order = this.order || new Uint32Array(this.sorter.count), started = performance.now();
    const found = this.sorter.sort(question.time, axis, offset, order);
    this.answer({ order, found, milliseconds: performance.now() - started });
    return true;
  }

  answer(result) {
    this.busy = false;
    this.done = this.asked;
    this.order = result.order;
    this.found = result.found;
    this.take(result);
  }
}
