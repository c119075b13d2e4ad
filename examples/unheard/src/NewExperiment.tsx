import { useAction, useMutation, useQuery } from "convex/react";
import { useId, useState } from "react";
import type { FormEvent } from "react";
import { api } from "./backend";
import type { Template } from "./backend";
import { openExperiment } from "./location";
import { useNotice } from "./notices";

const GENERAL = "general";

export function NewExperiment({ projectId }: { projectId: string }) {
  const stimulusId = useId();
  const nameId = useId();
  const templates: Template[] | undefined = useQuery(api.experimentTemplates.list);
  const create = useMutation(api.experiments.create);
  const run = useAction(api.experiments.run);
  const notify = useNotice();
  const [choice, setChoice] = useState<string | null>(null);
  // null until the person writes something of their own: then the template's text stands there.
  const [written, setWritten] = useState<string | null>(null);
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);

  const selected = choice ?? templates?.[0]?._id ?? GENERAL;
  const template = templates?.find((one) => one._id === selected);
  const stimulus = written ?? template?.defaultStimulus ?? "";

  async function start(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    try {
      const experimentId: string = await create({
        projectId,
        name: name.trim() || (template?.name ?? "Everyday reactions"),
        stimulus,
        ...(template === undefined ? {} : { templateId: template._id }),
      });
      setName("");
      openExperiment(experimentId);
      // The run goes on by itself; what happens in it shows in the experiment.
      run({ experimentId }).catch(notify);
    } catch (error) {
      notify(error);
    } finally {
      setBusy(false);
    }
  }

  return (
    <form className="card" onSubmit={start} aria-label="New experiment">
      <h2>New experiment</h2>
      <fieldset className="templates">
        <legend>Who do you want to hear from?</legend>
        {templates === undefined ? (
          <div className="bone tall" aria-hidden="true" />
        ) : (
          <>
            {templates.map((one) => (
              <TemplateChoice
                key={one._id}
                value={one._id}
                title={one.name}
                detail={panelOf(one)}
                checked={selected === one._id}
                onChoose={setChoice}
              />
            ))}
            <TemplateChoice
              value={GENERAL}
              title="Everyday customers"
              detail="6 people without a stake in it"
              checked={selected === GENERAL}
              onChoose={setChoice}
            />
          </>
        )}
      </fieldset>
      <div className="field">
        <label htmlFor={stimulusId}>What do you put to them?</label>
        <textarea
          id={stimulusId}
          data-testid="stimulus"
          required
          rows={6}
          maxLength={4000}
          value={stimulus}
          placeholder="An offer, a message, a decision: the words they will see"
          onChange={(event) => setWritten(event.target.value)}
        />
      </div>
      <div className="field">
        <label htmlFor={nameId}>
          Name <span className="hint">optional</span>
        </label>
        <input
          id={nameId}
          maxLength={80}
          value={name}
          placeholder={template?.name ?? "Everyday reactions"}
          onChange={(event) => setName(event.target.value)}
        />
      </div>
      <button
        type="submit"
        className="primary large"
        data-testid="start"
        disabled={busy || templates === undefined || stimulus.trim() === ""}
      >
        {busy ? "Starting…" : "Start experiment"}
      </button>
    </form>
  );
}

function panelOf(template: Template): string {
  const size = template.personaArchetypes.reduce((sum, one) => sum + one.count, 0);
  const kinds = template.personaArchetypes.map((one) => one.name).join(", ");
  return `${size} people: ${kinds}`;
}

interface ChoiceProps {
  value: string;
  title: string;
  detail: string;
  checked: boolean;
  onChoose: (value: string) => void;
}

function TemplateChoice({ value, title, detail, checked, onChoose }: ChoiceProps) {
  return (
    <label className="choice">
      <input
        type="radio"
        name="template"
        value={value}
        checked={checked}
        onChange={() => onChoose(value)}
      />
      <span>
        <strong>{title}</strong>
        <span className="hint">{detail}</span>
      </span>
    </label>
  );
}
