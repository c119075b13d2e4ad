import type { Insights } from "./backend";

export function InsightsPanel({ insights }: { insights: Insights }) {
  return (
    <section className="card insights" data-testid="insights" aria-labelledby="insights-title">
      <h3 id="insights-title">What it means</h3>
      <ol>
        {insights.insights.map((one) => (
          <li key={one.insight}>
            <p className="insight">{one.insight}</p>
            <p className="hint">Confidence {Math.round(one.confidence * 100)} %</p>
            <p className="advice">{one.actionableRecommendation}</p>
            {one.supportingEvidence.length > 0 && (
              <details>
                <summary>Evidence</summary>
                <ul>
                  {one.supportingEvidence.map((evidence) => (
                    <li key={evidence}>{evidence}</li>
                  ))}
                </ul>
              </details>
            )}
          </li>
        ))}
      </ol>
      <div className="pair">
        <TopList title="Top concerns" points={insights.topConcerns} kind="negative" />
        <TopList title="Top positives" points={insights.topPositives} kind="positive" />
      </div>
    </section>
  );
}

interface TopListProps {
  title: string;
  points: string[];
  kind: "positive" | "negative";
}

function TopList({ title, points, kind }: TopListProps) {
  return (
    <div>
      <h4>{title}</h4>
      {points.length === 0 ? (
        <p className="hint">None stood out.</p>
      ) : (
        <ul className={`top-points ${kind}`}>
          {points.map((point) => (
            <li key={point}>{point}</li>
          ))}
        </ul>
      )}
    </div>
  );
}
