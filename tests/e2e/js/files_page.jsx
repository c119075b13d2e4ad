// A page as Convex's documentation shows it: ask for an address, POST the file there, keep its id.
import { ConvexProvider, ConvexReactClient, useMutation, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import React from "react";
import { createRoot } from "react-dom/client";

const client = new ConvexReactClient(new URLSearchParams(location.search).get("deployment"));

function Files() {
  const files = useQuery(api.files.listing);
  const generateUploadUrl = useMutation(api.files.uploadUrl);
  const save = useMutation(api.files.save);
  const remove = useMutation(api.files.remove);

  async function upload(event) {
    for (const file of event.target.files) {
      const result = await fetch(await generateUploadUrl(), {
        method: "POST",
        headers: { "Content-Type": file.type },
        body: file,
      });
      const { storageId } = await result.json();
      await save({ storageId, name: file.name });
    }
  }

  return (
    <main>
      <input type="file" multiple onChange={upload} />
      {files?.map((file) => (
        <figure key={file.id} data-name={file.name}>
          {file.type.startsWith("image/") && <img src={file.url} alt={file.name} />}
          <a href={file.url}>{file.name}</a>
          <button onClick={() => remove({ id: file.id })}>remove</button>
        </figure>
      ))}
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={client}>
    <Files />
  </ConvexProvider>,
);
