-- One bare INSERT of the same row into an identically indexed log, monthly partitions, no CHECK constraints.
\set user random(1, 20000)
INSERT INTO bench.log
VALUES (bench.id_at(now()), 'user-' || :user, NULL, '/search', 5000, 5000, true, NULL, NULL, now(), now());
