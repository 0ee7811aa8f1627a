-- What wrk sends to Windlass. Arguments: OPERATION [QUEUES] [BATCH] [strict] [PATHS]
--
--   send             one message a request
--   receive          one plain receive a request
--   lease_ack        a lease, then the acknowledgement of its receipt, each a request of its own
--   send_batch       BATCH messages a request
--   receive_batch    up to BATCH messages a request
--   lease_ack_batch  up to BATCH messages leased, then acknowledged together, each a request of its own
--   exchange         BATCH messages sent, then up to as many received, each a request of its own, in turn
--   get              a GET of each path in the file PATHS, one a line, in turn
--
-- QUEUES 0 (the default) is the queue "bench"; n > 0 goes round robin over "bench-0" .. "bench-<n-1>".
-- With "strict" every answer of a receive is looked at, and those without a message (204) are counted;
-- without it wrk does less, and the caller compares the queue's counts instead.
-- done() prints one line, "BENCH key=value ...", that bench/wrk.py reads.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

local function content(queue)
   return queue .. " " .. string.rep("x", 99 - #queue)
end

local function send_to(queue)
   return "POST", "/queues/" .. queue .. "/messages", '{"content":"' .. content(queue) .. '"}'
end

local function receive_from(queue)
   return "GET", "/queues/" .. queue .. "/messages", nil
end

local function send_batch_to(queue, batch)
   local message = '{"content":"' .. content(queue) .. '"}'
   local body = '{"messages":[' .. message .. string.rep("," .. message, batch - 1) .. "]}"
   return "POST", "/queues/" .. queue .. "/messages", body
end

local function receive_batch_from(queue, batch)
   return "GET", "/queues/" .. queue .. "/messages?max=" .. batch, nil
end

local makers = {
   send = send_to,
   receive = receive_from,
   send_batch = send_batch_to,
   receive_batch = receive_batch_from,
}

local function queue_names(queues)
   if queues == 0 then
      return { "bench" }
   end
   local names = {}
   for i = 0, queues - 1 do
      names[i + 1] = "bench-" .. i
   end
   return names
end

local json = { ["Content-Type"] = "application/json" }

-- Leases, and an acknowledgement of each. `lease()` is the next request for one; `answered(status, body)` looks
-- at an answer: of a lease it gives the request that acknowledges it, of an acknowledgement nil and how many
-- messages that ended, of anything else nothing.
-- Every lease that comes is put at the end of this thread's queue and taken once from its head, so each is
-- acknowledged exactly once, on whichever connection asks for a request next.
function lease_and_acknowledge(lease, answered)
   local pending, first, last = {}, 1, 0
   leased, acknowledged, acknowledging, messages = 0, 0, 0, 0

   function request()
      if first <= last then
         local acknowledgement = pending[first]
         pending[first] = nil
         first = first + 1
         acknowledging = acknowledging + 1
         return acknowledgement
      end
      return lease()
   end

   function response(status, _, body)
      local acknowledgement, ended = answered(status, body)
      if acknowledgement then
         leased = leased + 1
         last = last + 1
         pending[last] = acknowledgement
      elseif ended then
         acknowledged = acknowledged + 1
         messages = messages + ended
      end
   end
end

local function leases_of(names, parameters)
   local leases, turn = {}, 0
   for i, name in ipairs(names) do
      leases[i] = wrk.format("GET", "/queues/" .. name .. "/messages?lease=60" .. parameters)
   end
   return function()
      turn = turn % #leases + 1
      return leases[turn]
   end
end

local function lease_ack(names)
   lease_and_acknowledge(leases_of(names, ""), function(status, body)
      if status == 200 then
         local name = string.match(body, '"content":"([^ ]+) ')
         local receipt = string.match(body, '"receipt":"([^"]+)"')
         return wrk.format("DELETE", "/queues/" .. name .. "/receipts/" .. receipt)
      elseif status == 204 then
         return nil, 1
      end
   end)
end

local function lease_ack_batch(names, batch)
   lease_and_acknowledge(leases_of(names, "&max=" .. batch), function(_, body)
      if string.sub(body, 1, 11) == '{"results":' then
         local _, ended = string.gsub(body, '"status":"acknowledged"', "")
         return nil, ended
      end
      local acks = {}
      for receipt in string.gmatch(body, '"receipt":"([^"]+)"') do
         acks[#acks + 1] = '{"receipt":"' .. receipt .. '"}'
      end
      if #acks > 0 then
         local name = string.match(body, '"content":"([^ ]+) ')
         return wrk.format("POST", "/queues/" .. name .. "/acks", json, '{"acks":[' .. table.concat(acks, ",") .. "]}")
      end
   end)
end

local function exchange(names, batch)
   local ready, turn = {}, 0
   for _, name in ipairs(names) do
      local method, path, body
      if batch == 1 then
         method, path, body = send_to(name)
      else
         method, path, body = send_batch_to(name, batch)
      end
      ready[#ready + 1] = wrk.format(method, path, json, body)
      ready[#ready + 1] = wrk.format("GET", "/queues/" .. name .. "/messages" .. (batch == 1 and "" or "?max=" .. batch))
   end
   function request()
      turn = turn % #ready + 1
      return ready[turn]
   end
end

local function get_each(file)
   local ready, turn = {}, 0
   for path in io.lines(file) do
      ready[#ready + 1] = wrk.format("GET", path)
   end
   function request()
      turn = turn % #ready + 1
      return ready[turn]
   end
end

function init(args)
   local operation, queues, batch = args[1], tonumber(args[2] or 0), tonumber(args[3] or 1)
   local names = queue_names(queues)
   if operation == "lease_ack" then
      lease_ack(names)
      return
   end
   if operation == "lease_ack_batch" then
      lease_ack_batch(names, batch)
      return
   end
   if operation == "get" then
      get_each(args[5])
      return
   end
   if operation == "exchange" then
      exchange(names, batch)
      return
   end
   local make = makers[operation]
   if args[4] == "strict" then
      empty = 0
      function response(status)
         if status == 204 then
            empty = empty + 1
         end
      end
   end
   if queues == 0 then
      -- One constant request: wrk formats it once and the script costs nothing afterwards.
      wrk.method, wrk.path, wrk.body = make(names[1], batch)
      if wrk.body then
         wrk.headers["Content-Type"] = "application/json"
      end
      return
   end
   local ready, turn = {}, 0
   for i, name in ipairs(names) do
      local method, path, body = make(name, batch)
      ready[i] = wrk.format(method, path, body and json, body)
   end
   function request()
      turn = turn % #ready + 1
      return ready[turn]
   end
end

function done(summary, latency, _)
   local errors = summary.errors
   local line = string.format(
      "BENCH requests=%d microseconds=%d p50=%d p99=%d connect=%d read=%d write=%d timeout=%d status=%d",
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.timeout, errors.status
   )
   local sums = {}
   for _, thread in ipairs(threads) do
      for _, key in ipairs({ "leased", "acknowledged", "acknowledging", "messages", "empty" }) do
         sums[key] = (sums[key] or 0) + (thread:get(key) or 0)
      end
   end
   for key, value in pairs(sums) do
      line = line .. string.format(" %s=%d", key, value)
   end
   io.write(line .. "\n")
end
