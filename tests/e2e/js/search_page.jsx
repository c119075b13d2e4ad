// A search box of the official React client: what is typed is searched for, live; and a list by pages.
import { ConvexProvider, ConvexReactClient, usePaginatedQuery, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import React, { useState } from "react";
import { createRoot } from "react-dom/client";

const client = new ConvexReactClient(new URLSearchParams(location.search).get("deployment"));

function Search() {
  const [text, setText] = useState("");
  const found = useQuery(api.notes.find, { text });
  const pages = usePaginatedQuery(api.notes.findPage, { text }, { initialNumItems: 3 });
  return (
    <main>
      <input value={text} onChange={(event) => setText(event.target.value)} />
      <ul id="found" data-texts={JSON.stringify(found ?? null)}>
        {(found ?? []).map((each) => (
          <li key={each}>{each}</li>
        ))}
      </ul>
      <section id="pages" data-status={pages.status} data-count={pages.results.length}>
        <button disabled={pages.status !== "CanLoadMore"} onClick={() => pages.loadMore(3)}>
          more
        </button>
      </section>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={client}>
    <Search />
  </ConvexProvider>,
);
