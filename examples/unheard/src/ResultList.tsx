import { useState } from "react";
import type { Persona, Result, Sentiment } from "./backend";

type Shown = Sentiment | "all";
const FILTERS: Shown[] = ["all", "positive", "neutral", "negative"];

interface Props {
  results: Result[] | undefined;
  personas: Persona[];
  archetypeNames: Map<string, string>;
  isWorking: boolean;
}

/** The answers, newest first, so that each one is seen as it arrives. */
export function ResultList({ results, personas, archetypeNames, isWorking }: Props) {
  const [shown, setShown] = useState<Shown>("all");
  if (results === undefined) return <div className="bone tall" aria-hidden="true" />;
  if (results.length === 0) {
    return (
      <p className="hint">{isWorking ? "Waiting for the first answer…" : "No answers yet."}</p>
    );
  }
  const roles = new Map(personas.map((persona) => [persona._id, persona]));
  const newestFirst = results
    .filter((result) => shown === "all" || result.sentimentLabel === shown)
    .reverse();
  return (
    <>
      <div className="filters" role="group" aria-label="Show">
        {FILTERS.map((filter) => (
          <button
            key={filter}
            type="button"
            aria-pressed={shown === filter}
            onClick={() => setShown(filter)}
          >
            {filter}
          </button>
        ))}
      </div>
      {newestFirst.length === 0 && <p className="hint">None of the answers is {shown}.</p>}
      <ol className="results">
        {newestFirst.map((result) => (
          <li key={result._id} className={`result ${result.sentimentLabel}`} data-testid="result">
            <div className="who">
              <span className="face" aria-hidden="true">
                {initials(result.personaName)}
              </span>
              <span>
                <strong>{result.personaName}</strong>
                <span className="hint">
                  {archetypeNames.get(result.archetypeId) ?? result.archetypeId}
                  {withCompany(roles.get(result.personaId))}
                </span>
              </span>
              <span className={`chip ${result.sentimentLabel}`}>{result.sentimentLabel}</span>
            </div>
            <p>{result.response}</p>
            {result.keyPoints.length > 0 && (
              <ul className="points" aria-label="Key points">
                {result.keyPoints.map((point) => (
                  <li key={point}>{point}</li>
                ))}
              </ul>
            )}
          </li>
        ))}
      </ol>
    </>
  );
}

function withCompany(persona: Persona | undefined): string {
  return persona?.company === undefined ? "" : `, ${persona.company}`;
}

function initials(name: string): string {
  return name
    .split(/\s+/)
    .map((word) => word[0] ?? "")
    .slice(0, 2)
    .join("");
}
