// The page's own data: a header in JSON and the Gaussians' records (lrm4d/export/packing.py) in base64 of gzip.

class PageError extends Error {}

function readHeader() {
  try {
    return JSON.parse(document.getElementById("scene-header").textContent);
  } catch (error) {
    throw new PageError("This page's description of the scene is damaged. Was the file cut off while copying?");
  }
}

async function readRecords(header) {
  const element = document.getElementById("scene-data");
  const text = element ? element.textContent.trim() : "";
  const wanted = 4 * Math.ceil(header.bytes / 3);
  if (text.length !== wanted) {
    throw new PageError(`The scene in this file is incomplete: ${text.length.toLocaleString("en")} of `
      + `${wanted.toLocaleString("en")} characters are here. Was the file cut off while copying? Copy or export it again.`);
  }
  if (typeof DecompressionStream === "undefined") {
    throw new PageError("This browser cannot unpack the scene. Use Chrome 80, Firefox 113, Safari 16.4 or newer.");
  }
  try {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    if (planes.length !== header.count * 32) throw new Error(`${planes.length} bytes`);
    return joinPlanes(planes, header.count);
  } catch (error) {
    throw new PageError(`The scene in this file is damaged (${error.message || error.name}). Export it again.`);
  } finally {
    element.textContent = "";  // tens of megabytes that nobody needs any more
  }
}

// Byte planes (they compress better) to records of eight words.
function joinPlanes(planes, count) {
  const records = new Uint32Array(count * 8);
  for (let word = 0; word < 8; word++) {
    const at = [0, 1, 2, 3].map((k) => (word * 4 + k) * count);
    for (let i = 0; i < count; i++) {
      records[i * 8 + word] = planes[at[0] + i] | planes[at[1] + i] << 8 | planes[at[2] + i] << 16 | planes[at[3] + i] << 24;
    }
  }
  return records;
}
