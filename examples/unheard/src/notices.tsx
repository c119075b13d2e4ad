// Errors that a person has to see: short notices in a corner, and a fallback for broken parts.

import { ConvexError } from "convex/values";
import { Component, createContext, useCallback, useContext, useRef, useState } from "react";
import type { ReactNode } from "react";

interface Notice {
  id: number;
  text: string;
}

const NoticeContext = createContext<(error: unknown) => void>(() => {});

/** What to show of an error: the app's own message when it sent one. */
export function describe(error: unknown): string {
  if (error instanceof ConvexError) {
    const data: unknown = error.data;
    if (typeof data === "string") return data;
    if (typeof data === "object" && data !== null && "message" in data) return String(data.message);
  }
  const text = error instanceof Error ? error.message : String(error);
  // Where the client says which function it was, and the server which request: for the console.
  return text
    .replace(/^(\[CONVEX [^\]]*\]|\[Request ID: [^\]]*\]|Server Error|\s)+/, "")
    .replace(/\s*Called by client\s*$/, "");
}

/** Returns a function that shows an error until it is dismissed. */
export function useNotice(): (error: unknown) => void {
  return useContext(NoticeContext);
}

export function NoticeProvider({ children }: { children: ReactNode }) {
  const [notices, setNotices] = useState<Notice[]>([]);
  const nextId = useRef(0);
  const show = useCallback((error: unknown) => {
    const id = nextId.current++;
    setNotices((shown) => [...shown.slice(-2), { id, text: describe(error) }]);
  }, []);
  const dismiss = (id: number) => setNotices((shown) => shown.filter((one) => one.id !== id));
  return (
    <NoticeContext value={show}>
      {children}
      <div className="notices">
        {notices.map((notice) => (
          <div key={notice.id} className="notice" role="alert">
            <p>{notice.text}</p>
            <button type="button" aria-label="Dismiss" onClick={() => dismiss(notice.id)}>
              ×
            </button>
          </div>
        ))}
      </div>
    </NoticeContext>
  );
}

interface FallbackProps {
  children: ReactNode;
  title?: string;
}

/** Shows what went wrong in its children instead of an empty page. Give it a key to start anew. */
export class Fallback extends Component<FallbackProps, { error: unknown }> {
  state: { error: unknown } = { error: null };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  render() {
    if (this.state.error === null) return this.props.children;
    return (
      <section className="card problem" role="alert">
        <h2>{this.props.title ?? "This part could not be loaded"}</h2>
        <pre>{describe(this.state.error)}</pre>
        <button type="button" onClick={() => this.setState({ error: null })}>
          Try again
        </button>
      </section>
    );
  }
}
