/**
 * The webcam: a preview, and single pictures of it as PNG files.
 */
import { Failure } from "./api.js";

/**
 * Open the camera and play it in a video element.
 * @param {any} video
 * @returns {Promise<() => void>} a function that closes it
 */
export async function openCamera(video) {
  if (!navigator.mediaDevices) {
    throw new Failure("camera", "Browsers open the camera only for pages from this machine or over HTTPS.");
  }
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
  } catch (error) {
    const why = error instanceof DOMException && error.name === "NotAllowedError" ? "was not allowed" : "was not found";
    throw new Failure("camera", `The camera ${why}.`);
  }
  video.srcObject = media;
  await video.play();
  return () => {
    for (const track of media.getTracks()) track.stop();
    video.srcObject = null;
  };
}

const FIRST_PICTURE_MS = 10_000;

/** Wait until a video has a picture, but not for ever. @param {any} video */
async function firstPicture(video) {
  const HAVE_CURRENT_DATA = 2;
  if (video.readyState >= HAVE_CURRENT_DATA) return;
  await new Promise((done) => {
    video.addEventListener("loadeddata", done, { once: true });
    setTimeout(done, FIRST_PICTURE_MS);
  });
}

/**
 * Take a picture of a playing video.
 * @param {any} video
 * @returns {Promise<Blob>}
 */
export async function pictureOf(video) {
  await firstPicture(video);
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Failure("camera", "The camera gave no picture."))), "image/jpeg", 0.92);
  });
}
