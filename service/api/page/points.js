/**
 * The frame as a cloud of points, drawn with WebGL: coloured by picture, depth, or merge group.
 */
import { depthColour, groupColour, nearToFar } from "./colours.js";
import { Failure } from "./api.js";
import { groupsAt, leaders } from "./groups.js";
import { matrixOf, startOrbit } from "./orbit.js";

const VERTEX = `#version 300 es
in vec3 place; in vec3 colour; uniform mat4 view; uniform float dot_px; out vec3 shade;
void main() { gl_Position = view * vec4(place, 1.0); gl_PointSize = clamp(dot_px / gl_Position.w, 1.5, 14.0); shade = colour; }`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 colour;
void main() { vec2 off = gl_PointCoord - 0.5; if (dot(off, off) > 0.25) discard; colour = vec4(shade, 1.0); }`;

/**
 * @typedef {object} Scene
 * @property {ImageBitmap} bitmap
 * @property {{height: number, width: number, values: (number | null)[]}} map
 * @property {string} kind of the depth: metric, inverse or relative
 * @property {any} view of the overlay: grid, box and layers
 * @property {number} layer
 * @property {{focal_px: number, size_px: number, centre_px: number[]} | null} camera
 * @property {number} fieldOfView across, in degrees, where the camera is not known
 */

/** Metres of every point; relative depth has none, so near is put at 1 m and far at 4 m. @param {Scene} scene */
function metres({ map, kind }) {
  const range = nearToFar(map.values, kind);
  if (kind === "metric") return map.values;
  return map.values.map((value) => {
    if (value === null) return null;
    if (kind === "inverse") return Math.min(4 * range.near / Math.max(value, 1e-6) / 4, 8) || null;
    return 1 + 3 * range.share(value);
  });
}

/**
 * Places [x right, y up, z towards the viewer] and the share of the picture of every valid point.
 * @param {Scene} scene
 */
export function lifted(scene) {
  const { height, width } = scene.map;
  const aspect = scene.bitmap.height / scene.bitmap.width;
  const known = scene.camera;
  const focal = known ? known.focal_px / known.size_px : 0.5 / Math.tan((scene.fieldOfView * Math.PI) / 360);
  const centre = known ? known.centre_px.map((value) => value / known.size_px) : [0.5, 0.5];
  /** @type {number[]} */
  const places = [];
  /** @type {{u: number, v: number, at: number}[]} */
  const pixels = [];
  metres(scene).forEach((depth, at) => {
    if (depth === null) return;
    const [u, v] = [((at % width) + 0.5) / width, (Math.floor(at / width) + 0.5) / height];
    places.push(((u - centre[0]) / focal) * depth, (((centre[1] - v) * aspect) / focal) * depth, -depth);
    pixels.push({ u, v, at });
  });
  return { places, pixels };
}

/** @param {Scene} scene @param {{u: number, v: number, at: number}[]} pixels @param {"picture" | "depth" | "group"} by */
export function coloured(scene, pixels, by) {
  if (by === "depth") {
    const range = nearToFar(scene.map.values, scene.kind);
    return pixels.flatMap(({ at }) => depthColour(range.share(/** @type {number} */ (scene.map.values[at]))).map((value) => value / 255));
  }
  if (by === "group") {
    const [rows, columns] = scene.view.grid;
    const layer = groupsAt(scene.view, scene.layer);
    const first = leaders(layer);
    return pixels.flatMap(({ u, v }) => {
      const group = layer.groups[Math.floor(v * rows) * columns + Math.floor(u * columns)];
      return group < 0 ? [0.3, 0.3, 0.3] : groupColour(first[group]).map((value) => value / 255);
    });
  }
  const { width, height } = scene.map;
  const small = new OffscreenCanvas(width, height);
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (small.getContext("2d", { willReadFrequently: true }));
  pen.drawImage(scene.bitmap, 0, 0, width, height);
  const data = pen.getImageData(0, 0, width, height).data;
  return pixels.flatMap(({ at }) => [data[4 * at] / 255, data[4 * at + 1] / 255, data[4 * at + 2] / 255]);
}

/**
 * Draw a scene in a canvas and let a person go round it.
 * @param {any} canvas
 * @param {Scene} scene
 */
export function showPoints(canvas, scene) {
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl) throw new Failure("webgl", "This browser draws no 3D: WebGL 2 is turned off or not there.");
  const { places, pixels } = lifted(scene);
  const program = linked(gl);
  const middle = pixels.length ? median(places.filter((_, at) => at % 3 === 2)) : -2;
  const view = { yaw: 0.35, pitch: 0.25, distance: Math.abs(middle) * 1.25 + 0.4, target: [0, median(places.filter((_, at) => at % 3 === 1)), middle] };
  fillBuffer(gl, program, "place", places);
  let count = pixels.length;
  const draw = () => {
    const scale = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(canvas.clientHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(program);
    gl.uniformMatrix4fv(gl.getUniformLocation(program, "view"), false, matrixOf(view, width / height));
    gl.uniform1f(gl.getUniformLocation(program, "dot_px"), (height / scene.map.height) * 2.4 * Math.abs(middle));
    gl.drawArrays(gl.POINTS, 0, count);
  };
  let waiting = 0;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  };
  startOrbit(canvas, view, soon);
  new ResizeObserver(soon).observe(canvas);
  return {
    count,
    /** @param {"picture" | "depth" | "group"} by @param {number} layer */
    paint(by, layer) {
      scene.layer = layer;
      fillBuffer(gl, program, "colour", coloured(scene, pixels, by));
      soon();
    },
    end() {
      count = 0;
      cancelAnimationFrame(waiting);
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** @param {WebGL2RenderingContext} gl */
function linked(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of /** @type {[number, string][]} */ ([[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]])) {
    const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Failure("webgl", "This browser could not prepare the 3D drawing.");
  return program;
}

/** @param {WebGL2RenderingContext} gl @param {WebGLProgram} program @param {string} name @param {number[]} values three of each point */
function fillBuffer(gl, program, name, values) {
  const at = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(values), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(at);
  gl.vertexAttribPointer(at, 3, gl.FLOAT, false, 0, 0);
}

