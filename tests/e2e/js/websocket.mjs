// A browser's WebSocket for Node: its own from version 22 on, before that the one of jsdom.
import { JSDOM } from "jsdom";

export default globalThis.WebSocket ?? new JSDOM("", { url: "http://127.0.0.1/" }).window.WebSocket;
