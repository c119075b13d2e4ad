// The deployment this page talks to, and the shapes of what it answers.

import { ConvexReactClient } from "convex/react";
import { anyApi } from "convex/server";

export const deploymentUrl: string = import.meta.env.VITE_CONVEX_URL ?? window.location.origin;
export const client = new ConvexReactClient(deploymentUrl);
export const api = anyApi;

export type Status = "draft" | "generating_personas" | "running" | "completed" | "failed";
export type Sentiment = "positive" | "neutral" | "negative";

export interface Project {
  _id: string;
  name: string;
  description?: string;
}

export interface Archetype {
  id: string;
  name: string;
  count: number;
  description: string;
}

export interface Template {
  _id: string;
  name: string;
  description: string;
  category: string;
  isOfficial: boolean;
  defaultStimulus: string;
  personaArchetypes: Archetype[];
}

export interface Experiment {
  _id: string;
  _creationTime: number;
  projectId: string;
  name: string;
  status: Status;
  stimulus: string;
  templateName?: string;
  totalPersonas: number;
  completedPersonas: number;
  executionTimeMs?: number;
  updatedAt: number;
  config?: { provider?: string; error?: string; archetypes?: Archetype[] };
}

export interface Persona {
  _id: string;
  name: string;
  role: string;
  company?: string;
}

export interface Result {
  _id: string;
  personaId: string;
  personaName: string;
  archetypeId: string;
  response: string;
  sentiment: number;
  sentimentLabel: Sentiment;
  keyPoints: string[];
}

export interface Insights {
  insights: {
    insight: string;
    confidence: number;
    supportingEvidence: string[];
    actionableRecommendation: string;
  }[];
  sentimentBreakdown: { positive: number; neutral: number; negative: number; average: number };
  topConcerns: string[];
  topPositives: string[];
}

/** Archetype ids in words, as far as the experiment says what they mean. */
export function archetypeNames(experiment: Experiment): Map<string, string> {
  return new Map((experiment.config?.archetypes ?? []).map((one) => [one.id, one.name]));
}

export function isWorking(status: Status): boolean {
  return status === "generating_personas" || status === "running";
}
