// Sends messages with an MLLP client of other make and prints what it takes for their answers.
//
//   node send.mjs medplum|node-hl7-client PORT < messages.json
//
// stdin: {"messages": [text], "returnAck"?: "application", "ca"?: PEM, "expected"?: number of answers, where a message
// has more than one}; stdout: a JSON array of texts.
import { Hl7Message } from '@medplum/core';
import { Hl7Client } from '@medplum/hl7';
import { text } from 'node:stream/consumers';
import { Batch, Client, Message } from 'node-hl7-client';

const [kind, port] = process.argv.slice(2);
const { messages, returnAck, ca, expected } = JSON.parse(await text(process.stdin));

async function medplum() {
  const client = new Hl7Client({ host: '127.0.0.1', port: Number(port) });
  const answers = [];
  for (const message of messages) {
    const answer = await client.sendAndWait(Hl7Message.parse(message), { returnAck, timeoutMs: 20_000 });
    answers.push(answer.toString());
  }
  await client.close();
  return answers;
}

function nodeHl7Client() {
  const client = new Client({ host: '127.0.0.1', ...(ca && { tls: { ca, checkServerIdentity: () => undefined } }) });
  const answers = [];
  return new Promise((resolve, reject) => {
    const connection = client.createConnection({ port: Number(port) }, async (answer) => {
      answers.push(answer.getMessage().toString());
      if (answers.length < messages.length) return send();
      if (answers.length < expected) return undefined;
      await connection.close();
      return resolve(answers);
    });
    connection.on('client.error', reject);
    const send = () => {
      const next = messages[answers.length];
      return connection.sendMessage(next.startsWith('BHS') ? new Batch({ text: next }) : new Message({ text: next }));
    };
    send().catch(reject);
  });
}

const answers = await { medplum, 'node-hl7-client': nodeHl7Client }[kind]();
console.log(JSON.stringify(answers));
process.exit(0);
