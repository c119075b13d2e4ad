import { useQuery } from "convex/react";
import { api } from "./backend";
import type { Experiment } from "./backend";
import { linkTo } from "./location";
import { StatusPill } from "./StatusPill";

interface Props {
  projectId: string;
  openId: string | null;
}

export function EarlierExperiments({ projectId, openId }: Props) {
  const experiments: Experiment[] | undefined = useQuery(api.experiments.listByProject, {
    projectId,
  });
  return (
    <nav className="card earlier" aria-label="Experiments of this project">
      <h2>Experiments</h2>
      {experiments === undefined && <div className="bone" aria-hidden="true" />}
      {experiments?.length === 0 && <p className="hint">None yet in this project.</p>}
      <ul>
        {experiments?.map((one) => (
          <li key={one._id}>
            <a href={linkTo(one._id)} aria-current={one._id === openId ? "page" : undefined}>
              <span className="title">{one.name}</span>
              <span className="hint">
                {one.completedPersonas} of {one.totalPersonas} answers
              </span>
              <StatusPill status={one.status} />
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}
