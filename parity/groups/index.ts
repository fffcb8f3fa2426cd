import type { Adapter, AdapterModule } from '../adapter.js';

/** Where each group's adapters live; a module is loaded when a case needs it. */
const modules: Readonly<Record<string, readonly (() => Promise<AdapterModule>)[]>> = {
  A_schedulers: [() => import('./a_sde.js'), () => import('./a_schedulers.js')],
  B_blocks: [() => import('./b_blocks.js')],
  C_models: [
    () => import('./c_models.js'),
    () => import('./c_condition.js'),
    () => import('./c_autoencoders.js'),
    () => import('./c_text.js'),
    () => import('./c_text_to_image.js'),
  ],
  D_pipelines: [() => import('./d_pipelines.js')],
  E_training: [() => import('./e_training.js'), () => import('./e_denoisers.js')],
  F_rng: [() => import('./f_rng.js')],
  G_guiders: [() => import('./g_guiders.js'), () => import('./g_processors.js')],
  H_systems: [
    () => import('./h_adain.js'),
    () => import('./h_autoregressive.js'),
    () => import('./h_flow_matching.js'),
    () => import('./h_flow_training.js'),
    () => import('./h_flows.js'),
    () => import('./h_flow_images.js'),
    () => import('./h_ffjord.js'),
    () => import('./h_norms.js'),
    () => import('./h_dit.js'),
    () => import('./h_classifier.js'),
    () => import('./h_ode.js'),
    () => import('./h_sde.js'),
    () => import('./h_uvit.js'),
    () => import('./h_linear_attention.js'),
    () => import('./h_gated_attention.js'),
    () => import('./h_mamba.js'),
    () => import('./h_s4.js'),
  ],
};

/** The adapter for a group and kind; `A / B` and `A method` fall back to `A`. */
export async function findAdapter(group: string, kind: string): Promise<Adapter | undefined> {
  const first = /^[\w.]+/.exec(kind)?.[0];
  for (const name of [kind, first]) {
    for (const load of modules[group] ?? []) {
      const { adapters } = await load();
      if (name !== undefined && Object.hasOwn(adapters, name)) return adapters[name];
    }
  }
  return undefined;
}
