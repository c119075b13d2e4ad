// A page that logs in, for a real browser. `window.SERVER` and `window.ISSUER` say with whom.
import { ConvexProviderWithAuth, ConvexReactClient } from "convex/react";
import { useConvexAuth, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import { createElement as h, useCallback, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

const { SERVER, ISSUER } = window;
const client = new ConvexReactClient(SERVER, { unsavedChangesWarning: false });
window.fetches = 0;
window.seconds = 3600; // how long the next token is good
window.logIn = () => {};

function useAuth() {
  const [user, setUser] = useState(null);
  window.logIn = setUser;
  const fetchAccessToken = useCallback(async () => {
    window.fetches += 1;
    const answer = await fetch(`${ISSUER}/token?subject=${user}&seconds=${window.seconds}`);
    return answer.text();
  }, [user]);
  return useMemo(
    () => ({ isLoading: false, isAuthenticated: user !== null, fetchAccessToken }),
    [user, fetchAccessToken],
  );
}

function Body() {
  const { isLoading, isAuthenticated } = useConvexAuth();
  const me = useQuery(api.people.me);
  const mine = useQuery(api.people.mine) ?? [];
  window.write = useMutation(api.people.write);
  return h(
    "main",
    null,
    h("p", { id: "state" }, isLoading ? "…" : isAuthenticated ? "inside" : "outside"),
    h("p", { id: "me" }, me === undefined ? "…" : (me?.subject ?? "nobody")),
    h("p", { id: "mine" }, mine.join(" ")),
  );
}

createRoot(document.querySelector("#page")).render(
  h(ConvexProviderWithAuth, { client, useAuth }, h(Body)),
);
