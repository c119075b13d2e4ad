import { useConvexConnectionState, useQuery } from "convex/react";
import { useState } from "react";
import { api, deploymentUrl } from "./backend";
import type { Experiment, Project } from "./backend";
import { EarlierExperiments } from "./EarlierExperiments";
import { ExperimentView } from "./ExperimentView";
import { useOpenExperiment } from "./location";
import { NewExperiment } from "./NewExperiment";
import { Fallback } from "./notices";
import { ProjectPicker } from "./ProjectPicker";

export function App() {
  return (
    <>
      <header className="top">
        <h1>
          <img src={`${import.meta.env.BASE_URL}icon.svg`} alt="" width="32" height="32" />
          Unheard
        </h1>
        <p className="tagline">Ask a room of people who do not exist yet.</p>
        <ConnectionBadge />
      </header>
      <Fallback>
        <Workspace />
      </Fallback>
    </>
  );
}

function Workspace() {
  const openId = useOpenExperiment();
  const projects: Project[] | undefined = useQuery(api.projects.list);
  const [chosenId, setChosenId] = useState<string | null>(null);
  const project = projects?.find((one) => one._id === chosenId) ?? projects?.[0];

  return (
    <main className="columns">
      <div className="side">
        <ProjectPicker projects={projects} selected={project} onSelect={setChosenId} />
        {project !== undefined && (
          <Fallback key={project._id}>
            <NewExperiment projectId={project._id} />
            <EarlierExperiments projectId={project._id} openId={openId} />
          </Fallback>
        )}
      </div>
      <div className="stage">
        {openId === null ? (
          <Welcome />
        ) : (
          <Fallback key={openId} title="This experiment cannot be shown">
            <OpenExperiment experimentId={openId} />
          </Fallback>
        )}
      </div>
    </main>
  );
}

function OpenExperiment({ experimentId }: { experimentId: string }) {
  const experiment: Experiment | null | undefined = useQuery(api.experiments.get, { experimentId });
  if (experiment === undefined) {
    return (
      <section className="card" aria-busy="true" aria-label="Loading the experiment">
        <div className="bone wide" />
        <div className="bone" />
        <div className="bone tall" />
      </section>
    );
  }
  if (experiment === null) {
    return (
      <section className="card problem" role="alert">
        <h2>No such experiment</h2>
        <p>It was removed, or it belongs to somebody else.</p>
      </section>
    );
  }
  return <ExperimentView experiment={experiment} />;
}

function Welcome() {
  return (
    <section className="card welcome">
      <h2>Nothing is open yet</h2>
      <p>
        Choose who you want to hear from, say what you want to put to them, and start. Every answer
        appears here the moment it is given, in every browser that looks at the same experiment.
      </p>
    </section>
  );
}

function ConnectionBadge() {
  const state = useConvexConnectionState();
  const [kind, text] = state.isWebSocketConnected
    ? ["live", "Live"]
    : state.hasEverConnected
      ? ["lost", "Reconnecting"]
      : ["waiting", state.connectionRetries > 1 ? "Cannot reach the server" : "Connecting"];
  return (
    <p className={`badge ${kind}`} role="status" data-testid="connection" title={deploymentUrl}>
      <span className="dot" aria-hidden="true" />
      {text}
    </p>
  );
}
