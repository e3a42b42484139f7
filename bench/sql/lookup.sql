-- A function that looks up one row by its primary key.
\set user random(1, 20000)
SELECT bench.balance('user-' || :user);
