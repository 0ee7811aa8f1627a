-- What wrk sends to a server that speaks SQS, in the JSON protocol.
-- Arguments: OPERATION QUEUE_URL CONTENT BATCH [KEY_ID DATE REGION SIGNING_KEY]
--
--   send             one message a request
--   send_batch       BATCH messages a request
--   lease_ack        ReceiveMessage, then DeleteMessage of its receipt, each a request of its own
--   lease_ack_batch  ReceiveMessage of up to BATCH, then DeleteMessageBatch of what came
--
-- With KEY_ID requests are signed (Signature Version 4) at DATE, as in 20260101T000000Z, which a server takes
-- for some minutes; SIGNING_KEY is in hexadecimal. The constant ones are signed once, each deletion by itself.
-- Without it they carry a signature that is none: a server that verifies no signatures may still look at the
-- header to see which service is meant.
-- Receipts go the way that they go in windlass.lua, and figures are printed as there.

local here = string.match(debug.getinfo(1, "S").source, "^@(.*/)") or "./"
dofile(here .. "windlass.lua")

local KIND = "application/x-amz-json-1.0"
local LEASE = 60

-- wrk is linked with OpenSSL, whose functions are at hand therefore.
local ffi = require("ffi")
ffi.cdef([[
unsigned char *SHA256(const char *data, size_t length, unsigned char *digest);
const void *EVP_sha256(void);
unsigned char *HMAC(const void *hash, const char *key, int key_length, const char *data, size_t length,
                    unsigned char *digest, unsigned int *digest_length);
]])
local digest = ffi.new("unsigned char[32]")

local function hexadecimal()
   return (string.gsub(ffi.string(digest, 32), ".", function(byte)
      return string.format("%02x", string.byte(byte))
   end))
end

local function sha256(text)
   ffi.C.SHA256(text, #text, digest)
   return hexadecimal()
end

local function hmac(key, text)
   ffi.C.HMAC(ffi.C.EVP_sha256(), key, #key, text, #text, digest, nil)
   return hexadecimal()
end

local SIGNED = "content-type;host;x-amz-date;x-amz-target"

-- A function that gives the headers of an action with this body.
local function signer(key_id, date, region, signing_key)
   if not key_id then
      local constant = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/sqs/aws4_request, SignedHeaders="
         .. SIGNED .. ", Signature=" .. string.rep("0", 64)
      return function(action)
         return {
            ["Content-Type"] = KIND,
            ["X-Amz-Target"] = "AmazonSQS." .. action,
            ["X-Amz-Date"] = "20260101T000000Z",
            ["Authorization"] = constant,
         }
      end
   end
   local key = string.gsub(signing_key, "..", function(byte) return string.char(tonumber(byte, 16)) end)
   local scope = string.sub(date, 1, 8) .. "/" .. region .. "/sqs/aws4_request"
   local before = "POST\n/\n\ncontent-type:" .. KIND .. "\nhost:" .. wrk.headers["Host"] .. "\nx-amz-date:" .. date
      .. "\nx-amz-target:AmazonSQS."
   local said = "AWS4-HMAC-SHA256 Credential=" .. key_id .. "/" .. scope .. ", SignedHeaders=" .. SIGNED
      .. ", Signature="
   return function(action, body)
      local canonical = before .. action .. "\n\n" .. SIGNED .. "\n" .. sha256(body)
      local text = "AWS4-HMAC-SHA256\n" .. date .. "\n" .. scope .. "\n" .. sha256(canonical)
      return {
         ["Content-Type"] = KIND,
         ["X-Amz-Target"] = "AmazonSQS." .. action,
         ["X-Amz-Date"] = date,
         ["Authorization"] = said .. hmac(key, text),
      }
   end
end

local function entries_of(batch, entry)
   local entries = {}
   for i = 1, batch do
      entries[i] = '{"Id":"' .. i .. '",' .. entry(i) .. "}"
   end
   return '"Entries":[' .. table.concat(entries, ",") .. "]}"
end

function init(args)
   local operation, url, content, batch = args[1], args[2], args[3], tonumber(args[4])
   local headers_of = signer(args[5], args[6], args[7], args[8])
   local queue = '{"QueueUrl":"' .. url .. '",'
   local message = '"MessageBody":"' .. content .. '"'

   local function ask(action, rest)
      local body = queue .. rest
      return wrk.format("POST", "/", headers_of(action, body), body)
   end

   -- One constant request: wrk formats it once and the script costs nothing afterwards.
   local function always(action, rest)
      wrk.method, wrk.path, wrk.body = "POST", "/", queue .. rest
      for name, value in pairs(headers_of(action, wrk.body)) do
         wrk.headers[name] = value
      end
   end

   if operation == "send" then
      always("SendMessage", message .. "}")
      return
   end
   if operation == "send_batch" then
      always("SendMessageBatch", entries_of(batch, function() return message end))
      return
   end
   local single = operation == "lease_ack"
   local most = single and "" or ('"MaxNumberOfMessages":' .. batch .. ",")
   local lease = ask("ReceiveMessage", most .. '"VisibilityTimeout":' .. LEASE .. "}")
   lease_and_acknowledge(function() return lease end, function(status, body)
      if status ~= 200 then
         return
      end
      local receipts = {}
      for receipt in string.gmatch(body, '"ReceiptHandle"%s*:%s*"([^"]+)"') do
         receipts[#receipts + 1] = '"ReceiptHandle":"' .. receipt .. '"'
      end
      if #receipts == 0 then
         local _, ended = string.gsub(body, '"Id"', "")
         return nil, single and 1 or ended -- those that failed are missing from the queue's counts then
      elseif single then
         return ask("DeleteMessage", receipts[1] .. "}")
      end
      return ask("DeleteMessageBatch", entries_of(#receipts, function(i) return receipts[i] end))
   end)
end
