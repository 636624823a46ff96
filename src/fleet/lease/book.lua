-- One refresh of one instance: what it wants goes into the book, its grants come out. The same rules are in book.rs.
--
-- KEYS[1]: the book, a hash. `clock`: its time. `m:<id>`: a member, with its leases. `o:<role>`: the last order.
-- ARGV: id, number of the request, ttl, weight, facts, leases {name: {l: limit, w: want, c: cap, u: used}}, orders
-- [[role, text, since or 0]], the members that it knows of, and "bye" of one that leaves.
local key, id, seq, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local weight, facts = tonumber(ARGV[4]), ARGV[5]
local asked, orders, leaves = cjson.decode(ARGV[6]), cjson.decode(ARGV[7]), ARGV[9] == 'bye'
local known = tonumber(ARGV[8])

-- The book's time goes on with the Redis's clock, but by no more than the margin of a lease at once, and never back: a
-- clock that jumps ends no lease early. After a time in which nobody came, nothing in it may be true any more, and for
-- as long as a lease lasts everybody keeps what it says it has.
local step_max, gap = 1000, 3000
local clock = redis.call('HGET', key, 'clock')
if clock then
  clock = cjson.decode(clock)
  local step = wall - clock.wall
  clock.t = clock.t + math.min(math.max(step, 0), step_max)
  if step > gap then clock.learn = clock.t + ttl end
else
  clock = {t = wall, learn = wall + ttl}
end
clock.wall = wall
redis.call('HSET', key, 'clock', cjson.encode(clock))

local members, ids, kept = {}, {}, {}
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  local member, role = string.match(all[i], '^m:(.*)$'), string.match(all[i], '^o:(.*)$')
  if member then
    members[member] = cjson.decode(all[i + 1])
  elseif role then
    kept[role] = cjson.decode(all[i + 1])
  end
end
for member, record in pairs(members) do
  if record.e <= clock.t and member ~= id then
    members[member] = nil
    redis.call('HDEL', key, 'm:' .. member)
  end
end
local me = members[id]
if me and seq <= me.s then return redis.error_reply('STALE a later request of this instance was here') end
if leaves then
  redis.call('HDEL', key, 'm:' .. id)
  return '{}'
end
local learns = clock.t < clock.learn

-- Members divide by the number of all when the book is lost. A larger number holds at once, a smaller one when no other
-- divides by one that is smaller still.
local count, agree = 1, true
for member, _ in pairs(members) do if member ~= id then count = count + 1 end end
for member, record in pairs(members) do
  if member ~= id and record.k > 0 and record.k < count then agree = false end
end
local knows = known
if (known > 0 and count > known) or (not learns and agree) then knows = count end
me = {e = clock.t + ttl, s = seq, w = weight, k = knows, f = facts, r = {}}
if known > 0 then me.k = math.min(known, knows) end
members[id] = me
for name, lease in pairs(asked) do
  me.r[name] = {l = lease.l, w = lease.w, h = math.max(lease.c, lease.u)}
end
for member, _ in pairs(members) do ids[#ids + 1] = member end
table.sort(ids)

-- The part of each of `who` in `limit`, by weight and no more than it wants; the rest evenly, wanted or not.
local function divide(limit, who, name)
  local part, pending, rest = {}, {}, limit
  local least = #who <= limit and 1 or 0
  for _, member in ipairs(who) do
    part[member], pending[#pending + 1] = 0, member
  end
  local function want(member) return math.max(members[member].r[name].w, least) end
  local function sum(of)
    local total = 0
    for _, member in ipairs(of) do total = total + members[member].w end
    return total
  end
  local function spread(of, turn)
    local total, given = sum(of), 0
    for _, member in ipairs(of) do
      local more = math.floor(rest * members[member].w / total)
      part[member], given = part[member] + more, given + more
    end
    local left = rest - given
    for i = 0, left - 1 do
      local member = of[(turn + i) % #of + 1]
      part[member] = part[member] + 1
    end
  end
  while #pending > 0 do
    local total, hungry = sum(pending), {}
    for _, member in ipairs(pending) do
      if want(member) * total > rest * members[member].w then hungry[#hungry + 1] = member end
    end
    if #hungry == #pending then
      -- Too few for all take turns.
      spread(pending, rest < #pending and math.floor(clock.t / 1000) or 0)
      return part
    end
    local satisfied = {}
    for _, member in ipairs(pending) do
      if want(member) * total <= rest * members[member].w then satisfied[#satisfied + 1] = member end
    end
    for _, member in ipairs(satisfied) do
      part[member], rest = want(member), rest - want(member)
    end
    pending = hungry
  end
  spread(who, 0)
  return part
end

local grants = {}
for name, mine in pairs(me.r) do
  local who, limit, others = {}, mine.l, 0
  for _, member in ipairs(ids) do
    local lease = members[member].r[name]
    if lease then
      who[#who + 1] = member
      limit = math.min(limit, lease.l)
      if member ~= id then others = others + lease.h end
    end
  end
  local cap, grant = asked[name].c, 0
  if learns then
    grant = math.min(math.max(cap, 1), limit)
  else
    grant = math.min(divide(limit, who, name)[id], math.max(limit - others, 0))
  end
  mine.h = math.max(mine.h, grant)
  grants[name] = {g = grant, l = limit}
end

-- The later of two orders for a role holds; one that came back from an instance is as old as it was.
for _, order in ipairs(orders) do
  local role, since = order[1], order[3]
  local known = kept[role]
  if since == 0 then since = math.max(wall, known and known.since + 1 or 0) end
  if not known or known.since < since then
    kept[role] = {text = order[2], since = since}
    redis.call('HSET', key, 'o:' .. role, cjson.encode(kept[role]))
  end
end

redis.call('HSET', key, 'm:' .. id, cjson.encode(me))
local seen = {}
for i, member in ipairs(ids) do
  seen[i] = {member, members[member].f, ttl - (members[member].e - clock.t)}
end
return cjson.encode({
  wall = wall, learns = learns, knows = knows, grants = grants, members = seen, orders = kept,
})
