export type Split = 'train' | 'test';
