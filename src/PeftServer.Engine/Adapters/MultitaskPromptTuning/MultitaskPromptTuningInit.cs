using System.Text.Json.Serialization;

namespace PeftServer.Engine.Adapters.MultitaskPromptTuning;

/// <summary>How the rows of multitask prompt tuning start.</summary>
public enum MultitaskPromptTuningInit
{
    /// <summary>Drawn from a normal distribution.</summary>
    [JsonStringEnumMemberName("RANDOM")]
    Random,

    /// <summary>Embeddings of the tokens of a text, repeated or cut to the length of the prompt.</summary>
    [JsonStringEnumMemberName("TEXT")]
    Text,

    /// <summary>Embeddings of tokens drawn from the vocabulary.</summary>
    [JsonStringEnumMemberName("SAMPLE_VOCAB")]
    SampleVocab,

    /// <summary>Another prompt's shared rows, and the mean of its tasks.</summary>
    [JsonStringEnumMemberName("AVERAGE_SOURCE_TASKS")]
    AverageSourceTasks,

    /// <summary>Another prompt's shared rows, and one of its tasks.</summary>
    [JsonStringEnumMemberName("EXACT_SOURCE_TASK")]
    ExactSourceTask,

    /// <summary>Another prompt's shared rows.</summary>
    [JsonStringEnumMemberName("ONLY_SOURCE_SHARED")]
    OnlySourceShared,
}
