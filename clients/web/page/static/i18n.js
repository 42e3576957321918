// Words of the page in the reader's language. Every key is in every language: a test tells.

const en = {
  app: "Assistant",
  you: "You",
  assistant: "Assistant",
  conversation: "Conversation",
  conversations: "Conversations",
  newChat: "New conversation",
  openConversations: "Conversations",
  noConversations: "No conversations yet. They are kept on your computer, not on this device.",
  conversationsOffline: "Conversations are kept on your computer. They come back with it.",
  retitle: "Rename or delete {title}",
  title: "Title",
  save: "Save",
  remove: "Delete conversation",
  removeSure: "Delete for good?",
  close: "Close",
  cancel: "Cancel",
  earlier: "Earlier messages",

  greeting: "What can I do for you?",
  greetingNote: "Everything is answered by your own computer. Nothing leaves the house.",
  idea1: "Explain why the sky is blue",
  idea2: "Write a short thank-you note",
  idea3: "Three ideas for a quick dinner",

  ask: "Ask anything",
  message: "Your message",
  send: "Send",
  stop: "Stop",
  stopping: "Stopping…",
  retry: "Ask again",
  retryLoad: "Try again",
  copy: "Copy answer",
  copyCode: "Copy code",
  copied: "Copied",
  notCopied: "Could not copy",
  readAloud: "Read aloud",
  latest: "Latest message",
  waiting: "Waiting for the connection",
  waitingTurn: "Waits for its turn",
  takeBack: "Take back",
  stopped: "Stopped",
  cutOff: "The answer reached its longest length.",
  reconnecting: "Reconnecting…",
  reading: "Reading… {percent}",
  loading: "Waking the model…",
  answered: "Answer complete",

  offline: "No connection. What you ask is sent once it is back.",
  away: "The assistant is not running on your computer. It is asked as soon as it is back.",
  offlineShort: "No connection",
  awayShort: "Assistant is away",
  online: "Connected again",
  updated: "A new version is ready.",
  reload: "Reload",
  restarted: "The assistant restarted in mid-answer.",
  lostAnswer: "This question was not answered.",
  failed: "That did not work: {reason}",
  busy: "The assistant is busy. Next try in {seconds} s.",
  tooBusy: "The assistant is busy with others. Ask again in a moment.",
  tooLarge: "That is too long for the model. Make it shorter, or begin a new conversation.",
  noModel: "No model is loaded on the computer. Run `assistant models pull` there.",
  shuttingDown: "The assistant is shutting down. Ask again when it is back.",
  noAnswer: "No answer from your computer. Try again in a moment.",

  hold: "Hold to talk",
  tapToSend: "Tap to send",
  listening: "Listening…",
  releaseToSend: "Release to send",
  hearing: "Writing down what you said…",
  notUnderstood: "I did not catch that. Hold the button while you talk.",
  noMicrophone: "No microphone. Allow it for this page in the browser's settings.",
  typeInstead: "Type instead",
  askAgain: "Ask something else",
  lastAnswer: "Last answer",
  back: "Back",

  status: "What it is doing",
  state: "State",
  state_starting: "starting",
  state_loading: "loading the model",
  state_ready: "ready",
  state_no_model: "no model",
  state_shutting_down: "shutting down",
  model: "Model",
  speed: "Speed of the last answer",
  perSecond: "{n} tokens/s",
  memory: "Memory",
  ofBudget: "{used} of {budget}",
  queue: "Under way, waiting",
  served: "Answers so far",
  version: "Version",
  thisDevice: "This device",
  words: "Its four words",
  unpair: "Unpair this device",
  unpairSure: "Unpair now?",
  statusOffline: "Shown again when the connection is back.",
  weights: "Model",
  kv_cache: "Conversations",
  activations: "Computing",
  libraries: "Program",
  sessions: "Requests",
  stream: "Streaming",
  margin: "Reserve",

  pairTitle: "Pair this device",
  pairHow: "On the computer, run {command} and type the six digits that it shows, or scan its QR code.",
  pairScanned: "The code is filled in. Give this device a name and pair it.",
  pairCode: "Code",
  pairName: "Name of this device",
  pair: "Pair",
  pairing: "Pairing…",
  wrongCode: "That code is wrong, was used, or is older than five minutes. Get a new one on the computer.",
  shortCode: "The code has six digits.",
  tooManyTries: "Too many wrong tries. Wait a minute, then get a new code on the computer.",
  pairFailed: "Pairing did not work: {reason}",
  pairOffline: "The computer cannot be reached. Are both on the same network?",
  paired: "Paired",
  compareWords: "The computer shows four words. They must be these:",
  wordsDiffer: "If they differ, unpair at once: somebody is in between.",
  wordsSame: "They are the same",
  wordsNotSame: "They differ: unpair",
  revoked: "This device was removed on the computer. Nothing of it is kept here. Pair it again to go on.",
  unpaired: "This device is no longer paired.",
  certificate: "The browser warns of an unknown certificate?",
  certificateWhy: "Your computer has its own certificate authority. Let this device trust it, once:",
  certificateGet: "Download the certificate",
  certificateAndroid: "Android: Settings › Security › More › Install a certificate › CA certificate, and choose the file.",
  certificateIos: "iPhone, iPad: open the file, then Settings › General › VPN & Device Management › install. After that turn it on in Settings › General › About › Certificate Trust Settings.",
  certificateCheck: "Before you install it, compare its SHA-256 fingerprint with the one that `assistant gateway` shows on the computer.",
  device: "My device",
};

const ko = {
  app: "어시스턴트",
  you: "나",
  assistant: "어시스턴트",
  conversation: "대화",
  conversations: "대화 목록",
  newChat: "새 대화",
  openConversations: "대화 목록",
  noConversations: "아직 대화가 없습니다. 대화는 이 기기가 아니라 컴퓨터에 보관됩니다.",
  conversationsOffline: "대화는 컴퓨터에 보관되어 있습니다. 다시 연결되면 보입니다.",
  retitle: "{title} 이름 바꾸기 또는 삭제",
  title: "제목",
  save: "저장",
  remove: "대화 삭제",
  removeSure: "정말 삭제할까요?",
  close: "닫기",
  cancel: "취소",
  earlier: "이전 메시지",

  greeting: "무엇을 도와드릴까요?",
  greetingNote: "모든 답은 내 컴퓨터가 합니다. 아무것도 집 밖으로 나가지 않습니다.",
  idea1: "하늘이 왜 파란지 설명해 줘",
  idea2: "짧은 감사 인사를 써 줘",
  idea3: "간단한 저녁 메뉴 세 가지",

  ask: "무엇이든 물어보세요",
  message: "메시지",
  send: "보내기",
  stop: "멈추기",
  stopping: "멈추는 중…",
  retry: "다시 묻기",
  retryLoad: "다시 시도",
  copy: "답 복사",
  copyCode: "코드 복사",
  copied: "복사했습니다",
  notCopied: "복사하지 못했습니다",
  readAloud: "소리 내어 읽기",
  latest: "마지막 메시지로",
  waiting: "연결을 기다리는 중",
  waitingTurn: "차례를 기다리는 중",
  takeBack: "취소",
  stopped: "멈췄습니다",
  cutOff: "답이 최대 길이에 이르렀습니다.",
  reconnecting: "다시 연결하는 중…",
  reading: "읽는 중… {percent}",
  loading: "모델을 깨우는 중…",
  answered: "답이 끝났습니다",

  offline: "연결이 없습니다. 질문은 다시 연결되면 보냅니다.",
  away: "컴퓨터에서 어시스턴트가 실행되고 있지 않습니다. 다시 켜지면 질문을 보냅니다.",
  offlineShort: "연결 없음",
  awayShort: "어시스턴트가 꺼져 있음",
  online: "다시 연결되었습니다",
  updated: "새 버전이 준비되었습니다.",
  reload: "새로 고침",
  restarted: "답하는 도중에 어시스턴트가 다시 시작되었습니다.",
  lostAnswer: "이 질문은 답을 받지 못했습니다.",
  failed: "잘 되지 않았습니다: {reason}",
  busy: "어시스턴트가 바쁩니다. {seconds}초 뒤에 다시 시도합니다.",
  tooBusy: "어시스턴트가 다른 일로 바쁩니다. 잠시 뒤에 다시 물어보세요.",
  tooLarge: "모델이 읽기에 너무 깁니다. 줄이거나 새 대화를 시작하세요.",
  noModel: "컴퓨터에 불러온 모델이 없습니다. 컴퓨터에서 `assistant models pull`을 실행하세요.",
  shuttingDown: "어시스턴트가 종료되는 중입니다. 다시 켜지면 물어보세요.",
  noAnswer: "컴퓨터가 응답하지 않습니다. 잠시 뒤에 다시 시도하세요.",

  hold: "누른 채 말하세요",
  tapToSend: "누르면 보냅니다",
  listening: "듣는 중…",
  releaseToSend: "손을 떼면 보냅니다",
  hearing: "말씀을 받아 적는 중…",
  notUnderstood: "잘 듣지 못했습니다. 버튼을 누른 채 말하세요.",
  noMicrophone: "마이크가 없습니다. 브라우저 설정에서 이 페이지에 허용하세요.",
  typeInstead: "글로 묻기",
  askAgain: "다른 질문 하기",
  lastAnswer: "마지막 답",
  back: "뒤로",

  status: "지금 하는 일",
  state: "상태",
  state_starting: "시작하는 중",
  state_loading: "모델을 불러오는 중",
  state_ready: "준비됨",
  state_no_model: "모델 없음",
  state_shutting_down: "종료하는 중",
  model: "모델",
  speed: "마지막 답의 속도",
  perSecond: "초당 {n}토큰",
  memory: "메모리",
  ofBudget: "{budget} 중 {used}",
  queue: "처리 중, 대기 중",
  served: "지금까지 답한 수",
  version: "버전",
  thisDevice: "이 기기",
  words: "확인용 네 단어",
  unpair: "페어링 해제",
  unpairSure: "지금 해제할까요?",
  statusOffline: "다시 연결되면 보입니다.",
  weights: "모델",
  kv_cache: "대화",
  activations: "계산",
  libraries: "프로그램",
  sessions: "요청",
  stream: "스트리밍",
  margin: "여유",

  pairTitle: "이 기기 페어링",
  pairHow: "컴퓨터에서 {command} 명령을 실행하고, 화면에 나온 여섯 자리 숫자를 입력하거나 QR 코드를 찍으세요.",
  pairScanned: "코드가 입력되었습니다. 기기 이름을 정하고 페어링하세요.",
  pairCode: "코드",
  pairName: "이 기기의 이름",
  pair: "페어링",
  pairing: "페어링하는 중…",
  wrongCode: "코드가 틀렸거나, 이미 쓰였거나, 5분이 지났습니다. 컴퓨터에서 새 코드를 받으세요.",
  shortCode: "코드는 여섯 자리 숫자입니다.",
  tooManyTries: "여러 번 틀렸습니다. 1분쯤 기다렸다가 컴퓨터에서 새 코드를 받으세요.",
  pairFailed: "페어링하지 못했습니다: {reason}",
  pairOffline: "컴퓨터에 연결할 수 없습니다. 같은 네트워크에 있는지 확인하세요.",
  paired: "페어링되었습니다",
  compareWords: "컴퓨터에 네 단어가 보입니다. 다음과 같아야 합니다:",
  wordsDiffer: "다르면 바로 페어링을 해제하세요. 누군가 중간에서 엿듣고 있습니다.",
  wordsSame: "같습니다",
  wordsNotSame: "다릅니다. 페어링 해제",
  revoked: "컴퓨터에서 이 기기를 제거했습니다. 여기에는 아무것도 남지 않았습니다. 계속하려면 다시 페어링하세요.",
  unpaired: "이 기기의 페어링이 해제되었습니다.",
  certificate: "브라우저가 알 수 없는 인증서라고 경고하나요?",
  certificateWhy: "컴퓨터에는 자체 인증 기관이 있습니다. 이 기기가 한 번 신뢰하게 하세요:",
  certificateGet: "인증서 내려받기",
  certificateAndroid: "Android: 설정 › 보안 › 기타 › 인증서 설치 › CA 인증서에서 파일을 고르세요.",
  certificateIos: "iPhone, iPad: 파일을 열고 설정 › 일반 › VPN 및 기기 관리에서 설치하세요. 그다음 설정 › 일반 › 정보 › 인증서 신뢰 설정에서 켜세요.",
  certificateCheck: "설치하기 전에 인증서의 SHA-256 지문을 컴퓨터에서 `assistant gateway`가 보여 주는 것과 비교하세요.",
  device: "내 기기",
};

export const languages = { en, ko };

/** The page's language: English for all that have no words here. */
export const language = (navigator.language || "en").slice(0, 2) in languages
  ? navigator.language.slice(0, 2)
  : "en";

/** The words for `key`, with `{names}` replaced. */
export function t(key, values = {}) {
  const text = languages[language][key];
  if (text === undefined) throw new Error(`no words for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_all, name) => values[name]);
}

/** A size as people read it. */
export function size(bytes) {
  const [unit, n] = bytes >= 1e9 ? ["gigabyte", bytes / 1e9] : ["megabyte", bytes / 1e6];
  const maximumFractionDigits = n < 10 ? 1 : 0;
  return new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits }).format(n);
}

export function number(value, maximumFractionDigits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits }).format(value);
}

export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent" }).format(share);
}

/** When something was, as a list of conversations says it: "10:42", "yesterday", "3 Nov". */
export function when(seconds) {
  const then = new Date(seconds * 1000);
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - then) / 86_400_000);
  if (days <= 0) {
    return new Intl.DateTimeFormat(language, { hour: "numeric", minute: "2-digit" }).format(then);
  }
  if (days < 7) {
    return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(-days, "day");
  }
  return new Intl.DateTimeFormat(language, { day: "numeric", month: "short" }).format(then);
}
