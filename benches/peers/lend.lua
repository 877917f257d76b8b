-- Counts what is reported, drops its leases, and lends the next runs: atomically, and in as few commands as Redis allows.
-- A run's name is its task's number and two digits more. Runs to lend are a list; a lease is a run in a sorted set, by its deadline;
-- a task's count is a field of a hash. A message that names a run which is not lent (any more) is refused as a whole. What
-- expired is to be put into the list again by a sweeper, which is not measured.
--
-- KEYS: ready, leases, counts
-- ARGV: deadline of what is to be lent, how many are, then the runs that are done
local ready, leases, counts = KEYS[1], KEYS[2], KEYS[3]
local reported = #ARGV - 2

if reported > 1 then
    for _, deadline in ipairs(redis.call('ZMSCORE', leases, unpack(ARGV, 3))) do
        if not deadline then
            return redis.error_reply('NOTLENT')
        end
    end
end
if reported > 0 then
    if redis.call('ZREM', leases, unpack(ARGV, 3)) < reported then
        return redis.error_reply('NOTLENT')
    end
    local done = {}
    for argument = 3, #ARGV do
        local task = string.sub(ARGV[argument], 1, -3)
        done[task] = (done[task] or 0) + 1
    end
    for task, runs in pairs(done) do
        redis.call('HINCRBY', counts, task, runs)
    end
end

local lent = redis.call('LPOP', ready, ARGV[2])
if lent then
    local added = {}
    for _, run in ipairs(lent) do
        added[#added + 1] = ARGV[1]
        added[#added + 1] = run
    end
    redis.call('ZADD', leases, unpack(added))
end
return lent
