// Begins when the page is whole, or as whole as it was copied.

function publish(viewer) {
  const camera = ({ camera_to_world: pose, intrinsics, width, height }) => ({
    pose, lens: Array.isArray(intrinsics) ? lensOf([...intrinsics, width, height]) : viewer.home.lens,
  });
  return {
    // Times in [0, 1].
    setTime: (time) => { viewer.begin(); viewer.setTime(time); },
    getTime: () => viewer.playback.time,
    // An input camera's index, or {camera_to_world: 12 or 16 numbers row-major, intrinsics: [fx, fy, cx, cy], width, height}.
    setCamera: (wanted, seconds = 0) => {
      viewer.begin();
      if (typeof wanted === "number") viewer.standIn(wanted, seconds);
      else viewer.setCamera(camera(wanted), seconds);
    },
    getCamera: () => ({ index: viewer.chosen, camera_to_world: viewer.view.pose, ...viewer.view.lens }),
    play: () => { viewer.begin(); viewer.playback.play(); viewer.invalidate(); },
    pause: () => { viewer.playback.pause(); viewer.invalidate(); },
    get playing() { return viewer.playback.playing; },
    set: (name, value) => { viewer.begin(); viewer.state[name] = value; viewer.invalidate(); },
    state: viewer.state,
    stats: viewer.stats,
    frameReady: () => viewer.frameReady(),
    readPixels: () => viewer.readPixels(),
    // The visible Gaussians of the last frame by their place in the file, front to back.
    order: () => viewer.sorting.order ? viewer.sorting.order.slice(0, viewer.sorting.found) : null,
  };
}

async function start() {
  try {
    const canvas = byId("canvas"), atlas = byId("atlas");
    // Asked on a canvas of its own, so that a machine without it does not unpack anything.
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new PageError(NO_WEBGL);
    }
    const header = readHeader(), records = await readRecords(header);
    if (atlas) await atlas.decode();
    const viewer = new Viewer(header, records, canvas, atlas);
    const look = () => { if (readAddress(location.hash, viewer)) viewer.begin(); };
    look();
    window.addEventListener("hashchange", () => { look(); viewer.invalidate(); });
    await viewer.frameReady();
    document.body.classList.add("ready");
    if (eager) viewer.begin(true);
    byId("start").addEventListener("click", () => viewer.begin(true));
    return publish(viewer);
  } catch (error) {
    showProblem(error instanceof PageError ? error.message : `Something went wrong: ${error.message || error}`);
    if (!(error instanceof PageError)) console.error(error);
    throw error;
  }
}

// The scene comes last in the file: the button is there before it, and a click on it is not forgotten.
let eager = false;
byId("start").addEventListener("click", () => { eager = true; });

const loaded = new Promise((resolve) => window.addEventListener("DOMContentLoaded", resolve, { once: true }));
window.lrm4d = {
  ready: loaded.then(start).then((api) => Object.defineProperties(window.lrm4d, Object.getOwnPropertyDescriptors(api))),
};
window.lrm4d.ready.catch(() => {});  // the page itself says what is wrong
