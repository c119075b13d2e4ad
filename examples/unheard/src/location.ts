// Which experiment is open stands in the address, so that a link opens the same one elsewhere.

import { useSyncExternalStore } from "react";

function subscribe(callback: () => void): () => void {
  window.addEventListener("hashchange", callback);
  return () => window.removeEventListener("hashchange", callback);
}

function read(): string | null {
  return new URLSearchParams(window.location.hash.slice(1)).get("experiment");
}

export function useOpenExperiment(): string | null {
  return useSyncExternalStore(subscribe, read);
}

export function linkTo(experimentId: string): string {
  return `#experiment=${encodeURIComponent(experimentId)}`;
}

export function openExperiment(experimentId: string): void {
  window.location.hash = linkTo(experimentId);
}

export function closeExperiment(): void {
  window.location.hash = "";
}
