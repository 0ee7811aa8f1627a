// The life of queues and messages with aws-sdk v3. Each step prints one line of JSON with what it saw, or how
// it failed; test_javascript.py says what there has to be. The environment says where the server is.
//
//   node sqs.mjs PREFIX      PREFIX begins the names of all queues that it makes

import assert from "node:assert/strict";
import * as sdk from "@aws-sdk/client-sqs";

const prefix = process.argv[2];
const client = new sdk.SQSClient({ maxAttempts: 1 });
const send = (action, parameters) => client.send(new sdk[`${action}Command`](parameters));
const create = async (name, Attributes) =>
  (await send("CreateQueue", { QueueName: `${prefix}-${name}`, Attributes })).QueueUrl;
const receive = async (QueueUrl, more = {}) =>
  (await send("ReceiveMessage", { QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 20, ...more })).Messages ?? [];
const attribute = async (QueueUrl, name) =>
  (await send("GetQueueAttributes", { QueueUrl, AttributeNames: [name] })).Attributes?.[name];

async function step(name, run) {
  try {
    console.log(JSON.stringify({ step: name, saw: await run() }));
  } catch (error) {
    console.log(JSON.stringify({ step: name, failed: String(error.stack ?? error) }));
  }
}

/** The name of the error class, of those of the SDK, that `action` fails with. */
async function failure(action, parameters) {
  try {
    await send(action, parameters);
  } catch (error) {
    const kind = sdk[error.name];
    return kind && error instanceof kind ? `instanceof ${error.name}` : error.name;
  }
  return "nothing";
}

async function receiveAll(QueueUrl, count, more) {
  const found = [];
  while (found.length < count) {
    const some = await receive(QueueUrl, more);
    assert(some.length, `${found.length} of ${count} came`);
    found.push(...some);
  }
  return found;
}

const attributes = {
  text: { DataType: "String", StringValue: "größer € 𝄞" },
  count: { DataType: "Number", StringValue: "-12.50" },
  picture: { DataType: "Binary", BinaryValue: Uint8Array.from([0, 127, 128, 255]) },
};

await step("life", async () => {
  const url = (await send("CreateQueue", { QueueName: `${prefix}-life`, tags: { team: "shop" } })).QueueUrl;
  assert.equal((await send("GetQueueUrl", { QueueName: `${prefix}-life` })).QueueUrl, url);
  const trace = { AWSTraceHeader: { DataType: "String", StringValue: "Root=1-5759e988" } };
  const sent = await send("SendMessage", {
    QueueUrl: url, MessageBody: "größer 𝄞", MessageAttributes: attributes, MessageSystemAttributes: trace,
  });
  const [message] = await receive(url, { MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"] });
  assert.equal(message.MessageId, sent.MessageId);
  assert.deepEqual(message.MessageAttributes, attributes);
  assert.equal(message.MD5OfMessageAttributes, sent.MD5OfMessageAttributes);
  await send("DeleteMessage", { QueueUrl: url, ReceiptHandle: message.ReceiptHandle });
  const { Tags } = await send("ListQueueTags", { QueueUrl: url });
  await send("DeleteQueue", { QueueUrl: url });
  return {
    body: message.Body, count: message.Attributes.ApproximateReceiveCount,
    trace: message.Attributes.AWSTraceHeader, tags: Tags,
  };
});

await step("batch", async () => {
  const url = await create("batch");
  const sent = await send("SendMessageBatch", {
    QueueUrl: url,
    Entries: [
      { Id: "a", MessageBody: "A", MessageAttributes: attributes },
      { Id: "bad", MessageBody: "\0" },
      { Id: "b", MessageBody: "B", DelaySeconds: 0 },
    ],
  });
  const messages = await receiveAll(url, 2);
  const Entries = messages.map(({ ReceiptHandle }, n) => ({ Id: `${n}`, ReceiptHandle }));
  const changed = await send("ChangeMessageVisibilityBatch", {
    QueueUrl: url, Entries: Entries.map((entry) => ({ ...entry, VisibilityTimeout: 600 })),
  });
  const deleted = await send("DeleteMessageBatch", {
    QueueUrl: url, Entries: [...Entries, { Id: "none", ReceiptHandle: "none" }],
  });
  return {
    sent: sent.Successful.map(({ Id }) => Id), refused: sent.Failed.map(({ Id, Code }) => [Id, Code]),
    bodies: messages.map(({ Body }) => Body).sort(), changed: changed.Successful.map(({ Id }) => Id),
    deleted: deleted.Successful.map(({ Id }) => Id), not: deleted.Failed.map(({ Id, Code }) => [Id, Code]),
  };
});

await step("fifo", async () => {
  const url = await create("order.fifo", { FifoQueue: "true" });
  const numbers = [];
  for (const body of ["1", "2", "2", "3"]) {
    const sent = await send("SendMessage", {
      QueueUrl: url, MessageBody: body, MessageGroupId: "g", MessageDeduplicationId: body,
    });
    numbers.push(sent.SequenceNumber);
  }
  const [one, two, same, three] = numbers.map(BigInt);
  assert(one < two && two === same && two < three);
  const messages = [];
  for (const attempt of ["first", "second", "third"]) {
    const [message] = await receive(url, {
      MaxNumberOfMessages: 1, ReceiveRequestAttemptId: attempt,
      MessageSystemAttributeNames: ["SequenceNumber", "MessageGroupId"],
    });
    await send("DeleteMessage", { QueueUrl: url, ReceiptHandle: message.ReceiptHandle });
    messages.push(message);
  }
  assert.equal(messages[0].Attributes.SequenceNumber, numbers[0]);
  return { bodies: messages.map(({ Body }) => Body), group: messages[0].Attributes.MessageGroupId };
});

await step("visibility", async () => {
  const url = await create("visibility");
  await send("SendMessage", { QueueUrl: url, MessageBody: "x" });
  const [first] = await receive(url, { VisibilityTimeout: 600 });
  const hidden = await receive(url, { WaitTimeSeconds: 0 });
  await send("ChangeMessageVisibility", { QueueUrl: url, ReceiptHandle: first.ReceiptHandle, VisibilityTimeout: 0 });
  const [second] = await receive(url, { MessageSystemAttributeNames: ["ApproximateReceiveCount"] });
  assert.equal(second.MessageId, first.MessageId);
  return { hidden: hidden.length, count: second.Attributes.ApproximateReceiveCount };
});

await step("attributes", async () => {
  const url = await create("attributes", { DelaySeconds: "3" });
  await send("SetQueueAttributes", { QueueUrl: url, Attributes: { VisibilityTimeout: "45" } });
  await send("TagQueue", { QueueUrl: url, Tags: { a: "1", b: "2" } });
  await send("UntagQueue", { QueueUrl: url, TagKeys: ["a"] });
  await send("AddPermission", {
    QueueUrl: url, Label: "shop", AWSAccountIds: ["111122223333"], Actions: ["SendMessage"],
  });
  const policy = JSON.parse(await attribute(url, "Policy"));
  await send("RemovePermission", { QueueUrl: url, Label: "shop" });
  const { Tags } = await send("ListQueueTags", { QueueUrl: url });
  return {
    delay: await attribute(url, "DelaySeconds"), visibility: await attribute(url, "VisibilityTimeout"),
    tags: Tags, label: policy.Statement[0].Sid,
  };
});

await step("lists", async () => {
  const dead = await create("dead");
  const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: await attribute(dead, "QueueArn"), maxReceiveCount: 1 });
  for (const n of [1, 2, 3]) await create(`source-${n}`, { RedrivePolicy });
  const listed = [], sources = [];
  for await (const page of sdk.paginateListQueues({ client, pageSize: 2 }, { QueueNamePrefix: `${prefix}-source` }))
    listed.push(page.QueueUrls.length);
  for await (const page of sdk.paginateListDeadLetterSourceQueues({ client, pageSize: 2 }, { QueueUrl: dead }))
    sources.push(page.queueUrls.length);
  return { listed, sources };
});

await step("moves", async () => {
  const dead = await create("moved-dead");
  const SourceArn = await attribute(dead, "QueueArn");
  const url = await create("moved", {
    RedrivePolicy: JSON.stringify({ deadLetterTargetArn: SourceArn, maxReceiveCount: 1 }),
  });
  const bury = async () => {
    const entries = Array.from({ length: 10 }, (_, n) => ({ Id: `${n}`, MessageBody: "poison" }));
    for (let n = 0; n < 6; n++) await send("SendMessageBatch", { QueueUrl: url, Entries: entries });
    await receiveAll(url, 60, { VisibilityTimeout: 0 });
    await receive(url, { WaitTimeSeconds: 0 });
    while ((await attribute(dead, "ApproximateNumberOfMessages")) !== "60");
  };
  await bury();
  const { TaskHandle } = await send("StartMessageMoveTask", { SourceArn, MaxNumberOfMessagesPerSecond: 1 });
  const again = await failure("StartMessageMoveTask", { SourceArn });
  const { ApproximateNumberOfMessagesMoved: moved } = await send("CancelMessageMoveTask", { TaskHandle });
  assert(moved < 60);
  const tasks = async () => (await send("ListMessageMoveTasks", { SourceArn, MaxResults: 10 })).Results;
  while ((await tasks())[0].Status !== "CANCELLED");
  await send("StartMessageMoveTask", { SourceArn, DestinationArn: await attribute(url, "QueueArn") });
  const messages = await receiveAll(url, 60);
  while ((await tasks())[0].Status !== "COMPLETED");
  return { again, body: messages[0].Body, tasks: (await tasks()).map(({ Status }) => Status) };
});

await step("purge", async () => {
  const url = await create("purge");
  await send("SendMessage", { QueueUrl: url, MessageBody: "x" });
  await send("PurgeQueue", { QueueUrl: url });
  const left = await receive(url, { WaitTimeSeconds: 0 });
  return { left: left.length, again: await failure("PurgeQueue", { QueueUrl: url }) };
});

/** What the SDK's model says of each error: its code in the query protocol, and its status. */
await step("model", async () => {
  const errors = Object.entries(sdk).filter(([name, shape]) => name.endsWith("$") && shape[3]?.awsQueryError);
  return Object.fromEntries(errors.map(([name, shape]) => [name.slice(0, -1), shape[3].awsQueryError]));
});

await step("errors", async () => {
  const url = await create("errors", { DelaySeconds: "1" });
  const never = `${url}-never`;
  const many = (count, more) => ({
    QueueUrl: url, Entries: Array.from({ length: count }, (_, n) => ({ Id: `${n}`, MessageBody: "x", ...more })),
  });
  const back = await create("back");
  await send("SendMessage", { QueueUrl: back, MessageBody: "x" });
  const [{ ReceiptHandle }] = await receive(back);
  await send("ChangeMessageVisibility", { QueueUrl: back, ReceiptHandle, VisibilityTimeout: 0 });
  const arn = (await attribute(url, "QueueArn")) + "-never";
  return [
    await failure("SendMessage", { QueueUrl: never, MessageBody: "x" }),
    await failure("GetQueueUrl", { QueueName: `${prefix}-never` }),
    await failure("CreateQueue", { QueueName: `${prefix}-errors`, Attributes: { DelaySeconds: "2" } }),
    await failure("SendMessage", { QueueUrl: url, MessageBody: "\0" }),
    await failure("SendMessageBatch", many(0)),
    await failure("SendMessageBatch", many(11)),
    await failure("SendMessageBatch", many(2, { Id: "same" })),
    await failure("SendMessageBatch", many(1, { Id: "a b" })),
    await failure("SendMessageBatch", many(5, { MessageBody: "x".repeat(262144) })),
    await failure("DeleteMessage", { QueueUrl: url, ReceiptHandle: "none" }),
    await failure("ChangeMessageVisibility", { QueueUrl: back, ReceiptHandle, VisibilityTimeout: 1 }),
    await failure("GetQueueAttributes", { QueueUrl: url, AttributeNames: ["Color"] }),
    await failure("SetQueueAttributes", { QueueUrl: url, Attributes: { DelaySeconds: "901" } }),
    await failure("AddPermission", {
      QueueUrl: url, Label: "a", AWSAccountIds: ["111122223333"], Actions: Array(8).fill("SendMessage"),
    }),
    await failure("StartMessageMoveTask", { SourceArn: arn }),
    await failure("StartMessageMoveTask", { SourceArn: arn.replace("-never", "") }),
    await failure("CancelMessageMoveTask", { TaskHandle: "AAAA" }),
  ];
});
