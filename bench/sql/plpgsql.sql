-- The sequence of round_trips.sql in one PL/pgSQL function.
\set user random(1, :users)
SELECT bench.charge('user-' || :user, 5000, NULL);
