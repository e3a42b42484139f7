-- The same as floor.sql into a log with the CHECK constraints of the real one.
\set user random(1, 20000)
INSERT INTO bench.checked_log
VALUES (bench.id_at(now()), 'user-' || :user, NULL, '/search', 5000, 5000, true, NULL, NULL, now(), now());
