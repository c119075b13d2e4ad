import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page is served under /unheard/ by the same server that answers its queries.
export default defineConfig({
  base: "/unheard/",
  plugins: [react()],
  build: { target: "es2022", sourcemap: false, reportCompressedSize: false },
});
