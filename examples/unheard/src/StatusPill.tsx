import type { Status } from "./backend";

interface Props {
  status: Status;
  testId?: string;
}

export function StatusPill({ status, testId }: Props) {
  return (
    <span className={`pill ${status}`} data-status={status} data-testid={testId}>
      {status.replace("_", " ")}
    </span>
  );
}
