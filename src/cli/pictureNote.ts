import { portablePath } from '../io/node/index.js';

type Change = (path: string) => string;

/** `canny=edges.png:0.8,from=0.2` of `--control` in three: folder, if it has one, picture with its scale, further words. */
export function splitControl(text: string): { folder?: string; picture?: string; words: string } {
  const words = /(?:,(?:from=[^,]*|to=[^,]*|guess))*$/.exec(text)![0];
  const [, folder, picture] = /^(?:(.+?)=)?(.+)$/s.exec(text.slice(0, text.length - words.length)) ?? [];
  return { ...(folder !== undefined && { folder }), ...(picture !== undefined && { picture }), words };
}

function inControl(text: string, change: Change): string {
  const { folder, picture = '', words } = splitControl(text);
  return `${folder === undefined ? '' : `${change(folder)}=`}${change(picture)}${words}`;
}

/** Settings that name files, in whatever command; what follows a file's name (`:0.7`) is as good as part of it. */
const files = ['model', 'run', 'data', 'net', 'image', 'mask', 'lora', 'tokenizer', 'content', 'style', 'from', 'to'];
const changes: Readonly<Record<string, ((text: string, change: Change) => string) | undefined>> = {
  ...Object.fromEntries([...files, 'interpolate'].map((key) => [key, (text: string, change: Change) => change(text)])),
  control: inControl,
};

/** The same settings with other paths. */
export function withPaths<T extends object>(settings: T, change: Change): T {
  const changed = ([key, value]: readonly [string, unknown]): [string, unknown] => {
    const inText = changes[key];
    const one = (part: unknown) => (inText !== undefined && typeof part === 'string' ? inText(part, change) : part);
    return [key, Array.isArray(value) ? value.map(one) : one(value)];
  };
  return Object.fromEntries(Object.entries(settings).map(changed)) as T;
}

/** What a picture was made with, for its metadata: files by paths that can be shown to others. */
export const pictureNote = (settings: object): { noisewright: string } => ({
  noisewright: JSON.stringify(withPaths(settings, portablePath)),
});
