-- Counts what is reported, drops its leases, and lends the next runs: atomically, and in as few commands as Redis allows.
-- A lease is the run's number in a sorted set, by its deadline; a task's count is a field of a hash. A run that is not lent
-- (any more) is refused with its whole message. What expired is to be put into `returned` by a sweeper, which is not measured.
--
-- KEYS: counts, leases, returned, next
-- ARGV: runs of a task, length of a lease in ms, how many to lend, then the runs that are done
local quota, length, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

if #ARGV > 3 then
    for _, deadline in ipairs(redis.call('ZMSCORE', KEYS[2], unpack(ARGV, 4))) do
        if not deadline then
            return redis.error_reply('NOTLENT')
        end
    end
    local done = {}
    for argument = 4, #ARGV do
        local task = math.floor(tonumber(ARGV[argument]) / quota)
        done[task] = (done[task] or 0) + 1
    end
    for task, runs in pairs(done) do
        redis.call('HINCRBY', KEYS[1], task, runs)
    end
    redis.call('ZREM', KEYS[2], unpack(ARGV, 4))
end

local lent = {}
if wanted > 0 then
    lent = redis.call('LPOP', KEYS[3], wanted) or {}
    local missing = wanted - #lent
    if missing > 0 then
        local last = redis.call('INCRBY', KEYS[4], missing)
        for run = last - missing, last - 1 do
            lent[#lent + 1] = run
        end
    end
    local now = redis.call('TIME')
    local deadline = now[1] * 1000 + math.floor(now[2] / 1000) + length
    local leases = {}
    for _, run in ipairs(lent) do
        leases[#leases + 1] = deadline
        leases[#leases + 1] = run
    end
    redis.call('ZADD', KEYS[2], unpack(leases))
end
return lent
