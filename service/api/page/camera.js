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

/**
 * Take a picture of a playing video.
 * @param {any} video
 * @returns {Promise<Blob>}
 */
export function pictureOf(video) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Failure("camera", "The camera gave no picture."))), "image/jpeg", 0.92);
  });
}
