"""Work that happens later: scheduled functions and crons, run when their time has come."""
