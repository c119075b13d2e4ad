import { useAction, useQuery } from "convex/react";
import { useEffect, useState } from "react";
import { api, archetypeNames, isWorking } from "./backend";
import type { Experiment, Insights, Persona, Result } from "./backend";
import { InsightsPanel } from "./InsightsPanel";
import { useNotice } from "./notices";
import { ResultList } from "./ResultList";
import { SentimentChart } from "./SentimentChart";
import { StatusPill } from "./StatusPill";

// A run cannot live longer than an action may: ten minutes, and some grace.
const STALLED_MS = 11 * 60 * 1000;

export function ExperimentView({ experiment }: { experiment: Experiment }) {
  const experimentId = experiment._id;
  const results: Result[] | undefined = useQuery(api.experimentResults.listByExperiment, {
    experimentId,
  });
  const personas: Persona[] | undefined = useQuery(api.personas.listByExperiment, { experimentId });
  const insights: Insights | null | undefined = useQuery(api.experimentInsights.getByExperiment, {
    experimentId,
  });
  const names = archetypeNames(experiment);

  return (
    <article className="experiment" aria-label={experiment.name}>
      <section className="card">
        <div className="heading">
          <h2>{experiment.name}</h2>
          <StatusPill status={experiment.status} testId="status" />
        </div>
        <blockquote>{experiment.stimulus}</blockquote>
        <Progress experiment={experiment} />
        <Facts experiment={experiment} />
        <RunControls experiment={experiment} />
      </section>
      <section className="card" aria-labelledby="sentiment-title">
        <h3 id="sentiment-title">How they take it</h3>
        <SentimentChart results={results ?? []} archetypes={experiment.config?.archetypes ?? []} />
      </section>
      {insights != null && <InsightsPanel insights={insights} />}
      <section className="card" aria-labelledby="answers-title">
        <h3 id="answers-title">What they say</h3>
        <ResultList
          results={results}
          personas={personas ?? []}
          archetypeNames={names}
          isWorking={isWorking(experiment.status)}
        />
      </section>
    </article>
  );
}

function Progress({ experiment }: { experiment: Experiment }) {
  const { completedPersonas: done, totalPersonas: total, status } = experiment;
  const text =
    status === "generating_personas"
      ? `Finding ${total} people to ask…`
      : `${done} of ${total} have answered`;
  return (
    <div className="progress">
      <div
        role="progressbar"
        data-testid="progress"
        aria-label="Answers"
        aria-valuemin={0}
        aria-valuenow={done}
        aria-valuemax={total}
        aria-valuetext={text}
        className={`bar ${isWorking(status) ? "working" : ""}`}
      >
        <div style={{ width: `${total === 0 ? 0 : (100 * done) / total}%` }} />
      </div>
      <p role="status">{text}</p>
    </div>
  );
}

function Facts({ experiment }: { experiment: Experiment }) {
  const { config, executionTimeMs, templateName } = experiment;
  return (
    <dl className="facts">
      {templateName !== undefined && (
        <div>
          <dt>Template</dt>
          <dd>{templateName}</dd>
        </div>
      )}
      {config?.provider !== undefined && (
        <div>
          <dt>Answers by</dt>
          <dd data-testid="provider">
            {config.provider === "simulator" ? "offline simulator" : "Claude"}
          </dd>
        </div>
      )}
      {executionTimeMs !== undefined && (
        <div>
          <dt>Took</dt>
          <dd>{(executionTimeMs / 1000).toFixed(1)} s</dd>
        </div>
      )}
    </dl>
  );
}

function RunControls({ experiment }: { experiment: Experiment }) {
  const run = useAction(api.experiments.run);
  const notify = useNotice();
  const [asked, setAsked] = useState(false);
  const { status } = experiment;
  const isStalled = useNow() - experiment.updatedAt > STALLED_MS && isWorking(status);
  if (status !== "draft" && status !== "failed" && !isStalled) return null;

  function start() {
    setAsked(true);
    run({ experimentId: experiment._id })
      .catch(notify)
      .finally(() => setAsked(false));
  }

  return (
    <div className="controls">
      {status === "failed" && (
        <p className="failure" role="alert">
          The run ended early. {experiment.config?.error} Answers that were given are kept.
        </p>
      )}
      {isStalled && (
        <p className="failure" role="alert">
          Nothing has happened in this run for a long time. Answers that were given are kept.
        </p>
      )}
      <button type="button" data-testid="run" disabled={asked} onClick={start}>
        {status === "draft" ? "Run" : "Run again"}
      </button>
    </div>
  );
}

/** The time, good enough to notice that minutes have passed. */
function useNow(): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 30_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
