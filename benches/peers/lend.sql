-- Counts one more run of each task in $1, then lends $2 others that nobody else is about to lend, the first ones from $3 on: every
-- client has a place of its own to begin, or else all would look through what the others are about to be lent.
--
-- Counting comes first, always: choosing also locks tasks for a moment that others were lent meanwhile, so whoever chose before
-- it counted would wait for them while they wait for it.
WITH counted AS (
    UPDATE task SET done = done + 1, lent_until = NULL WHERE id = ANY ($1) AND lent_until IS NOT NULL RETURNING id
), next AS (
    SELECT id FROM task
    WHERE id >= $3 AND lent_until IS NULL AND done < 100 AND (SELECT count(*) FROM counted) IS NOT NULL
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE task SET lent_until = now() + interval '60 s' FROM next WHERE task.id = next.id RETURNING task.id
