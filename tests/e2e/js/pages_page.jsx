// Lists of the official `usePaginatedQuery`, as a page shows them. Every state of a list that was
// rendered is kept in `window.shown`: a gap or something twice may not show for a moment.
import { ConvexProvider, ConvexReactClient, usePaginatedQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import React from "react";
import { createRoot } from "react-dom/client";

const client = new ConvexReactClient(new URLSearchParams(location.search).get("deployment"));
window.shown = {};

function List({ name }) {
  const { results, status, loadMore } = usePaginatedQuery(
    api.items[name],
    {},
    { initialNumItems: 4 },
  );
  const ranks = results.map((item) => item.rank);
  (window.shown[name] ??= []).push(ranks);
  return (
    <section id={name} data-status={status} data-ranks={JSON.stringify(ranks)}>
      <button disabled={status !== "CanLoadMore"} onClick={() => loadMore(4)}>
        more
      </button>
      <ol>
        {results.map((item) => (
          <li key={item._id}>{item.rank}</li>
        ))}
      </ol>
    </section>
  );
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={client}>
    <List name="page" />
    <List name="oddOnes" />
    <List name="eitherWay" />
  </ConvexProvider>,
);
