import { ConvexProvider } from "convex/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { client } from "./backend";
import { NoticeProvider } from "./notices";
import "./styles.css";

const root = document.getElementById("root");
if (root === null) throw new Error("The page has no element with id root.");
createRoot(root).render(
  <StrictMode>
    <ConvexProvider client={client}>
      <NoticeProvider>
        <App />
      </NoticeProvider>
    </ConvexProvider>
  </StrictMode>,
);
