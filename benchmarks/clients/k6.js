// k6 with ten virtual users that share the sessions; every number comes in from the environment.
//
//   k6 run --env SESSIONS=8000 --env WAIT=1 --env PORT=8000 --env ARRIVAL=burst --env STEPS=1 k6.js
//
// Virtual users share nothing, so that each holds back its own tenth of a `hold` batch and has its tenth of the window
// of handshakes in flight. Its clock, Date.now(), counts whole milliseconds.
import { WebSocket } from 'k6/experimental/websockets';
import { Counter, Trend } from 'k6/metrics';

const SESSIONS = Number(__ENV.SESSIONS);
const WAIT = Number(__ENV.WAIT);
const STEPS = Number(__ENV.STEPS);
const HOLDING = __ENV.ARRIVAL === 'hold';
const URL = `ws://127.0.0.1:${__ENV.PORT}/ws`;
const USERS = Math.min(10, SESSIONS);
const WINDOW = Math.ceil(256 / USERS);

const RESET = JSON.stringify({ type: 'reset', data: {} });
const STEP = JSON.stringify({ type: 'step', data: { wait_seconds: WAIT } });
const CLOSE = JSON.stringify({ type: 'close' });

const ok = new Counter('sessions_ok');
const latency = new Trend('step_over');

export const options = {
  scenarios: {
    sessions: { executor: 'per-vu-iterations', vus: USERS, iterations: 1, maxDuration: '10m', gracefulStop: '0s' },
  },
  summaryTrendStats: ['p(50)', 'p(99)'],
};

export default function () {
  const share = Math.floor((SESSIONS - __VU) / USERS) + 1;
  const held = [];
  let started = 0;
  let shaking = 0;
  let unready = share;

  function admit() {
    while (started < share && shaking < WINDOW) {
      started++;
      shaking++;
      session();
    }
  }

  function oneMoreUp() {
    unready--;
    if (unready === 0) held.forEach((step) => step());
  }

  function session() {
    const socket = new WebSocket(URL);
    let stage = 'connecting';
    let sent = 0;
    let left = STEPS;

    function step() {
      stage = 'stepping';
      sent = Date.now();
      socket.send(STEP);
    }

    function stepped() {
      latency.add(Date.now() - sent - WAIT * 1000);
      left--;
      if (left > 0) {
        step();
      } else {
        stage = 'closing';
        socket.send(CLOSE);
      }
    }

    socket.onopen = () => {
      stage = 'resetting';
      shaking--;
      admit();
      socket.send(RESET);
    };
    socket.onmessage = (event) => {
      JSON.parse(event.data);
      if (stage === 'stepping') {
        stepped();
      } else if (stage === 'resetting' && HOLDING) {
        held.push(step);
        oneMoreUp();
      } else if (stage === 'resetting') {
        step();
      }
    };
    socket.onclose = () => {
      if (stage === 'closing') ok.add(1);
      ended();
    };
    socket.onerror = () => ended();

    function ended() {
      if (stage === 'connecting') {
        shaking--;
        admit();
      }
      if (HOLDING && (stage === 'connecting' || stage === 'resetting')) oneMoreUp();
      stage = 'ended';
    }
  }

  admit();
}

export function handleSummary(data) {
  const of = (name) => (data.metrics[name] ? data.metrics[name].values : {});
  const steps = of('step_over');
  const told = {
    ok: of('sessions_ok').count || 0,
    step_over_p50: steps['p(50)'] / 1000,
    step_over_p99: steps['p(99)'] / 1000,
  };
  return { stdout: `${JSON.stringify(told)}\n` };
}
