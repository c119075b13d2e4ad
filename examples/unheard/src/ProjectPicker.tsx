import { useMutation } from "convex/react";
import { useId, useState } from "react";
import type { FormEvent } from "react";
import { api } from "./backend";
import type { Project } from "./backend";
import { useNotice } from "./notices";

interface Props {
  projects: Project[] | undefined;
  selected: Project | undefined;
  onSelect: (projectId: string) => void;
}

export function ProjectPicker({ projects, selected, onSelect }: Props) {
  const id = useId();
  const [adding, setAdding] = useState(false);
  const close = () => setAdding(false);

  if (projects === undefined) {
    return (
      <section className="card" aria-busy="true" aria-label="Loading projects">
        <div className="bone" />
      </section>
    );
  }
  const isAdding = adding || projects.length === 0;
  return (
    <section className="card project" aria-label="Project">
      {projects.length > 0 && (
        <div className="field">
          <label htmlFor={id}>Project</label>
          <div className="row">
            <select
              id={id}
              data-testid="project"
              value={selected?._id}
              onChange={(event) => onSelect(event.target.value)}
            >
              {projects.map((project) => (
                <option key={project._id} value={project._id}>
                  {project.name}
                </option>
              ))}
            </select>
            <button type="button" aria-expanded={adding} onClick={() => setAdding(!adding)}>
              New
            </button>
          </div>
          {selected?.description !== undefined && <p className="hint">{selected.description}</p>}
        </div>
      )}
      {isAdding && <NewProject onMade={onSelect} onDone={close} isFirst={projects.length === 0} />}
    </section>
  );
}

interface NewProjectProps {
  isFirst: boolean;
  onMade: (projectId: string) => void;
  onDone: () => void;
}

function NewProject({ isFirst, onMade, onDone }: NewProjectProps) {
  const id = useId();
  const create = useMutation(api.projects.create);
  const notify = useNotice();
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    try {
      onMade(await create({ name }));
      setName("");
      onDone();
    } catch (error) {
      notify(error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <form className="field" onSubmit={submit}>
      <label htmlFor={id}>{isFirst ? "Name your first project" : "Name of the new project"}</label>
      <div className="row">
        <input
          id={id}
          required
          maxLength={80}
          value={name}
          autoFocus={!isFirst}
          placeholder="Pricing study"
          onChange={(event) => setName(event.target.value)}
        />
        <button type="submit" className="primary" disabled={busy || name.trim() === ""}>
          Create
        </button>
      </div>
    </form>
  );
}
