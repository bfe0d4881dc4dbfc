// An MLLP server of other make that answers AA to everything and keeps nothing, for comparing speed.
//
//   node receive.mjs medplum|node-hl7-server PORT
//
// Prints "listening" once it does; ends with its stdin.
import { Hl7Server } from '@medplum/hl7';
import { connect } from 'node:net';
import { Server } from 'node-hl7-server';

const [kind, port] = process.argv.slice(2);

function medplum() {
  const answer = ({ connection, message }) => connection.send(message.buildAck());
  new Hl7Server((connection) => connection.addEventListener('message', answer)).start(Number(port));
}

function nodeHl7Server() {
  new Server({ bindAddress: '127.0.0.1' }).createInbound({ port: Number(port) }, (_, response) => response.sendResponse('AA'));
}

function announce() {
  connect(Number(port), '127.0.0.1')
    .on('connect', function done() { this.destroy(); console.log('listening'); })
    .on('error', () => setTimeout(announce, 20));
}

({ medplum, 'node-hl7-server': nodeHl7Server })[kind]();
announce();
process.stdin.on('end', () => process.exit(0)).resume();
