// k6 with ten virtual users that share the slots of a steady state; every number comes in from the environment.
//
//   k6 run --env SLOTS=8000 --env SECONDS=60 --env RAMP=20 --env STEPS=10 --env THINK=10 --env EXPONENTIAL=1
//          --env PORT=8000 k6_steady.js
//
// Each slot plays session after session, thinking before every step and every session; one that was refused waits 1 s,
// doubling to 30 s. Sessions that run when time is up are played to their end. Date.now() counts whole milliseconds.
import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';

const SLOTS = Number(__ENV.SLOTS);
const SECONDS = Number(__ENV.SECONDS);
const RAMP = Number(__ENV.RAMP);
const STEPS = Number(__ENV.STEPS);
const THINK = Number(__ENV.THINK);
const EXPONENTIAL = __ENV.EXPONENTIAL === '1';
const URL = `ws://127.0.0.1:${__ENV.PORT}/ws`;
const USERS = Math.min(10, SLOTS);

const RESET = JSON.stringify({ type: 'reset', data: {} });
const STEP = JSON.stringify({ type: 'step', data: { wait_seconds: 0 } });
const CLOSE = JSON.stringify({ type: 'close' });

const begun = new Counter('sessions_begun');
const ok = new Counter('sessions_ok');
const latency = new Trend('step_latency');
const lateness = new Trend('send_late');

export const options = {
  scenarios: {
    slots: { executor: 'per-vu-iterations', vus: USERS, iterations: 1, maxDuration: '1h', gracefulStop: '0s' },
  },
  summaryTrendStats: ['p(50)', 'p(99)'],
};

function thinkTime() {
  if (!EXPONENTIAL) return THINK * 1000;
  return 1000 * Math.min(-THINK * Math.log(1 - Math.random()), 10 * Math.LN2 * THINK);
}

export default function () {
  const end = Date.now() + SECONDS * 1000;

  function play(refusals) {
    if (Date.now() >= end) return;
    begun.add(1);
    const socket = new WebSocket(URL);
    let stage = 'connecting';
    let left = STEPS;
    let due = 0;
    let sent = 0;

    function thinkAndStep() {
      const think = thinkTime();
      due = Date.now() + think;
      setTimeout(() => {
        if (stage === 'ended') return;
        stage = 'stepping';
        sent = Date.now();
        lateness.add(sent - due);
        socket.send(STEP);
      }, think);
    }

    socket.onopen = () => {
      stage = 'resetting';
      socket.send(RESET);
    };
    socket.onmessage = (event) => {
      JSON.parse(event.data);
      if (stage === 'stepping') {
        latency.add(Date.now() - sent);
        left--;
      }
      if (left > 0) {
        thinkAndStep();
      } else {
        stage = 'closing';
        socket.send(CLOSE);
      }
    };
    socket.onclose = ended;
    socket.onerror = ended;

    function ended() {
      if (stage === 'ended') return;
      if (stage === 'closing') ok.add(1);
      const refused = stage === 'connecting' || stage === 'resetting';
      stage = 'ended';
      if (!refused) setTimeout(() => play(0), thinkTime());
      else setTimeout(() => play(refusals + 1), Math.min(1000 * 2 ** refusals, 30000));
    }
  }

  for (let slot = __VU - 1; slot < SLOTS; slot += USERS) setTimeout(() => play(0), (RAMP * 1000 * slot) / SLOTS);
}

export function handleSummary(data) {
  const of = (name) => (data.metrics[name] ? data.metrics[name].values : {});
  const [steps, late] = [of('step_latency'), of('send_late')];
  const told = {
    ok: (of('sessions_ok').count || 0) / of('sessions_begun').count,
    step_p50: steps['p(50)'] / 1000,
    step_p99: steps['p(99)'] / 1000,
    late_p50: late['p(50)'] / 1000,
    late_p99: late['p(99)'] / 1000,
  };
  return { stdout: `${JSON.stringify(told)}\n` };
}
