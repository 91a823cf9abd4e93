/**
 * A camera that goes round a point: by dragging, by the wheel, by two fingers, by keys.
 */

/** @typedef {{yaw: number, pitch: number, distance: number, target: number[], home?: View}} View home: where Home leads, if not to the beginning */

/**
 * Multiply 4 x 4 matrices in column order.
 * @param {number[]} a
 * @param {number[]} b
 */
function multiply(a, b) {
  const out = Array(16).fill(0);
  for (let column = 0; column < 4; column += 1)
    for (let row = 0; row < 4; row += 1)
      for (let at = 0; at < 4; at += 1) out[4 * column + row] += a[4 * at + row] * b[4 * column + at];
  return out;
}

/**
 * The matrix from the scene (x right, y up, z towards the viewer) to the screen.
 * @param {View} view
 * @param {number} aspect width over height
 */
export function matrixOf(view, aspect) {
  const [sy, cy, sp, cp] = [Math.sin(view.yaw), Math.cos(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch)];
  const [x, y, z] = view.target;
  const move = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, -x, -y, -z, 1];
  const turn = [cy, sp * sy, cp * sy, 0, 0, cp, -sp, 0, -sy, sp * cy, cp * cy, 0, 0, 0, 0, 1];
  const back = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, -view.distance, 1];
  const [near, far, focal] = [0.02, 200, 1 / Math.tan(0.45)];
  const narrow = Math.min(aspect, 1.2);
  const lens = [(focal * narrow) / aspect, 0, 0, 0, 0, focal * narrow, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0];
  return multiply(lens, multiply(back, multiply(turn, move)));
}

/**
 * Let a person move a view; `moved` is called after every change.
 * @param {HTMLElement} element
 * @param {View} view
 * @param {() => void} moved
 */
export function startOrbit(element, view, moved) {
  const began = { ...view, target: [...view.target] };
  /** @type {Map<number, {x: number, y: number}>} */
  const fingers = new Map();
  const turn = (/** @type {number} */ dx, /** @type {number} */ dy) => {
    view.yaw -= dx;
    view.pitch = Math.min(Math.max(view.pitch + dy, -1.5), 1.5);
    moved();
  };
  const zoom = (/** @type {number} */ factor) => {
    view.distance = Math.min(Math.max(view.distance * factor, 0.2), 60);
    moved();
  };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return b ? Math.hypot(a.x - b.x, a.y - b.y) : 0;
  };
  element.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const before = spread();
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before) zoom(before / Math.max(spread(), 1));
    else turn((event.clientX - last.x) / 180, (event.clientY - last.y) / 180);
  });
  for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
    element.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY / 600));
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => turn(-0.1, 0),
      ArrowRight: () => turn(0.1, 0),
      ArrowUp: () => turn(0, 0.1),
      ArrowDown: () => turn(0, -0.1),
      "+": () => zoom(0.9),
      "-": () => zoom(1.1),
      Home: () => {
        const home = view.home ?? began;
        Object.assign(view, home, { target: [...home.target] });
        moved();
      },
    };
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
