// The device's camera as a stream to look through and a shutter.
import { pause } from "./dom.ts";

const LARGEST = { width: { ideal: 4096 }, height: { ideal: 3072 } };
const SHUTTER_TIMEOUT = 4000;
const JPEG_QUALITY = 0.95;

interface PolicyDocument extends Document {
  featurePolicy?: { allowsFeature(feature: string): boolean };
}

const framed = window.self !== window.top;

const REASONS: Record<string, string> = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it in the address bar or the system settings, then try again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "Another program is using the camera. Close it, then try again.",
  FrameError: "This EHR shows DermBridge in a frame that may not use the camera (its iframe lacks allow=\"camera\"). Open DermBridge in its own tab, or choose files.",
  InsecureError: "Browsers give the camera only to pages opened over HTTPS. Choose files instead.",
};

/** Why there is no picture, and whether a tab of its own would help. */
export class NoCamera extends Error {
  constructor(name: string) {
    super(REASONS[name] ?? "The camera could not be started. Try again, or choose files.");
    this.framed = framed && (name === "FrameError" || name === "NotAllowedError");
  }
  readonly framed: boolean;
}

function checkAllowed(): void {
  const { featurePolicy } = document as PolicyDocument;
  if (framed && featurePolicy && !featurePolicy.allowsFeature("camera")) throw new NoCamera("FrameError");
  if (!navigator.mediaDevices?.getUserMedia) throw new NoCamera("InsecureError");
}

export class Camera {
  #stream: MediaStream | null = null;
  #facing: "environment" | "user" = "environment";

  constructor(readonly video: HTMLVideoElement) {}

  /** Start, or start again; throws NoCamera with the reason. */
  async start(): Promise<void> {
    checkAllowed();
    this.stop();
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { facingMode: { ideal: this.#facing }, ...LARGEST },
      });
    } catch (error) {
      throw new NoCamera(error instanceof DOMException ? error.name : "");
    }
    this.video.srcObject = this.#stream;
    await this.video.play();
  }

  stop(): void {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.video.srcObject = null;
  }

  async hasSeveral(): Promise<boolean> {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput").length > 1;
  }

  async flip(): Promise<void> {
    this.#facing = this.#facing === "environment" ? "user" : "environment";
    await this.start();
  }

  get label(): string {
    return this.#stream?.getVideoTracks()[0]?.label ?? "";
  }

  /** A JPEG: the sensor's own where the browser can ask for it, else the stream's full frame. */
  async shoot(): Promise<Blob> {
    const track = this.#stream?.getVideoTracks()[0];
    if (!track) throw new NoCamera("NotFoundError");
    return (await this.#fromSensor(track)) ?? this.#fromFrame();
  }

  async #fromSensor(track: MediaStreamTrack): Promise<Blob | null> {
    if (typeof ImageCapture === "undefined") return null;
    const photo = new ImageCapture(track).takePhoto().catch(() => null);
    return Promise.race([photo, pause(SHUTTER_TIMEOUT).then(() => null)]);
  }

  async #fromFrame(): Promise<Blob> {
    const canvas = document.createElement("canvas");
    canvas.width = this.video.videoWidth;
    canvas.height = this.video.videoHeight;
    canvas.getContext("2d")?.drawImage(this.video, 0, 0);
    const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg", JPEG_QUALITY));
    if (!blob) throw new NoCamera("");
    return blob;
  }
}
