-- COPY of 1,000 rows, out of a file on the server, into the log of floor.sql.
COPY bench.log (user_id, path, cost_microdollars, charged_microdollars, charged_to_balance) FROM '@DIR@/rows.copy';
