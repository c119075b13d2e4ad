import type { Archetype, Result, Sentiment } from "./backend";

const LABELS: Sentiment[] = ["positive", "neutral", "negative"];
const LANE = 46;
const TOP = 8;

interface Props {
  results: Result[];
  archetypes: Archetype[];
}

/** Counts per label, and one dot per answer: from against to in favour, one lane per archetype. */
export function SentimentChart({ results, archetypes }: Props) {
  const counts = { positive: 0, neutral: 0, negative: 0 };
  for (const result of results) counts[result.sentimentLabel] += 1;
  const total = results.length;
  const mean = total === 0 ? null : results.reduce((sum, one) => sum + one.sentiment, 0) / total;
  return (
    <div className="sentiment">
      <ul className="counts">
        {LABELS.map((label) => (
          <li key={label} className={label}>
            <strong data-testid={`sentiment-${label}`}>{counts[label]}</strong>
            <span>{label}</span>
          </li>
        ))}
        <li>
          <strong data-testid="sentiment-average">{mean === null ? "–" : signed(mean)}</strong>
          <span>average</span>
        </li>
      </ul>
      <div className="share" aria-hidden="true">
        {LABELS.map((label) => (
          <span key={label} className={label} style={{ flexGrow: counts[label] }} />
        ))}
      </div>
      <Lanes results={results} archetypes={archetypes} mean={mean} />
    </div>
  );
}

function Lanes({ results, archetypes, mean }: Props & { mean: number | null }) {
  const bottom = TOP + Math.max(archetypes.length, 1) * LANE;
  // Places across are percentages, so the drawing fits any width and its words keep their size.
  const x = (sentiment: number) => `${50 + 50 * sentiment}%`;
  const described = `${results.length} answers between against and in favour${
    mean === null ? "" : `, average ${signed(mean)}`
  }`;
  return (
    <svg className="lanes" width="100%" height={bottom + 24} role="img" aria-label={described}>
      <line className="axis" x1={x(0)} x2={x(0)} y1={TOP} y2={bottom} />
      {mean !== null && (
        <line className="mean" x1={x(mean)} x2={x(mean)} y1={TOP} y2={bottom} />
      )}
      {archetypes.map((archetype, index) => {
        const y = TOP + index * LANE + 31;
        return (
          <g key={archetype.id}>
            <text className="lane-name" x="0" y={y - 16}>
              {archetype.name}
            </text>
            <line className="lane" x1="0" x2="100%" y1={y} y2={y} />
            {results
              .filter((result) => result.archetypeId === archetype.id)
              .map((result) => (
                <circle
                  key={result._id}
                  className={`answer ${result.sentimentLabel}`}
                  cx={x(result.sentiment)}
                  cy={y}
                  r={7}
                >
                  <title>{`${result.personaName}: ${signed(result.sentiment)}`}</title>
                </circle>
              ))}
          </g>
        );
      })}
      <text className="end" x="0" y={bottom + 16}>
        against
      </text>
      <text className="end" x={x(0)} y={bottom + 16} textAnchor="middle">
        undecided
      </text>
      <text className="end" x="100%" y={bottom + 16} textAnchor="end">
        in favour
      </text>
    </svg>
  );
}

function signed(value: number): string {
  const rounded = Math.abs(value) < 0.005 ? 0 : value;
  return `${rounded > 0 ? "+" : rounded < 0 ? "−" : ""}${Math.abs(rounded).toFixed(2)}`;
}
