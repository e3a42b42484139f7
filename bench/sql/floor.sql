\set user random(1, 20000)
INSERT INTO bench.floor_log
VALUES (gen_random_uuid(), 'user-' || :user, NULL, '/search', 5000, 5000, true, NULL, NULL, now(), now());
