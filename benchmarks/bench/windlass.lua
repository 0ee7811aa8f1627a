-- What wrk sends to Windlass. Arguments: OPERATION [QUEUES] [BATCH] [strict] [PATHS]
--
--   send           one message a request
--   receive        one plain receive a request
--   lease_ack      a lease, then the acknowledgement of its receipt, each a request of its own
--   send_batch     BATCH messages a request
--   receive_batch  up to BATCH messages a request
--   exchange       BATCH messages sent, then up to as many received, each a request of its own, in turn
--   get            a GET of each path in the file PATHS, one a line, in turn
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

-- Every receipt that comes is put at the end of this thread's queue and taken once from its head, so
-- each is acknowledged exactly once, on whichever connection asks for a request next.
local function lease_and_acknowledge(names)
   local leases, pending, first, last, turn = {}, {}, 1, 0, 0
   for i, name in ipairs(names) do
      leases[i] = wrk.format("GET", "/queues/" .. name .. "/messages?lease=60")
   end
   leased, acknowledged, acknowledging = 0, 0, 0

   function request()
      if first <= last then
         local path = pending[first]
         pending[first] = nil
         first = first + 1
         acknowledging = acknowledging + 1
         return wrk.format("DELETE", path)
      end
      turn = turn % #leases + 1
      return leases[turn]
   end

   function response(status, _, body)
      if status == 200 then
         local name = string.match(body, '"content":"([^ ]+) ')
         local receipt = string.match(body, '"receipt":"([^"]+)"')
         leased = leased + 1
         last = last + 1
         pending[last] = "/queues/" .. name .. "/receipts/" .. receipt
      elseif status == 204 then
         acknowledged = acknowledged + 1
      end
   end
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
      lease_and_acknowledge(names)
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
      for _, key in ipairs({ "leased", "acknowledged", "acknowledging", "empty" }) do
         sums[key] = (sums[key] or 0) + (thread:get(key) or 0)
      end
   end
   for key, value in pairs(sums) do
      line = line .. string.format(" %s=%d", key, value)
   end
   io.write(line .. "\n")
end
