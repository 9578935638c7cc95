using System.Text.Json.Serialization;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Models;

namespace PeftServer.Core.Models;

/// <summary>What a model is for, by the Hugging Face Hub's names.</summary>
public enum ModelTask
{
    [JsonStringEnumMemberName("text-generation")]
    TextGeneration,

    [JsonStringEnumMemberName("text2text-generation")]
    Text2TextGeneration,

    [JsonStringEnumMemberName("text-classification")]
    TextClassification,

    [JsonStringEnumMemberName("token-classification")]
    TokenClassification,

    [JsonStringEnumMemberName("question-answering")]
    QuestionAnswering,

    [JsonStringEnumMemberName("feature-extraction")]
    FeatureExtraction,

    [JsonStringEnumMemberName("fill-mask")]
    FillMask,
}

/// <summary>What follows from a model's task.</summary>
public static class ModelTasks
{
    /// <summary>The task that a head is for.</summary>
    public static ModelTask Of(ModelHead head) => head switch
    {
        ModelHead.CausalLM => ModelTask.TextGeneration,
        ModelHead.Seq2SeqLM => ModelTask.Text2TextGeneration,
        ModelHead.SequenceClassification => ModelTask.TextClassification,
        ModelHead.TokenClassification => ModelTask.TokenClassification,
        ModelHead.QuestionAnswering => ModelTask.QuestionAnswering,
        ModelHead.Features => ModelTask.FeatureExtraction,
        _ => ModelTask.FillMask,
    };

    /// <summary>The task that an adapter says it was trained for; null where it says none.</summary>
    public static ModelTask? Of(TaskType? task) => ModelCatalog.HeadFor(task) is { } head ? Of(head) : null;

    extension(ModelTask task)
    {
        /// <summary>Paths that answer for models of this task, the usual one first.</summary>
        public IReadOnlyList<string> Endpoints => task switch
        {
            ModelTask.TextGeneration => ["/v1/chat/completions", "/v1/completions"],
            ModelTask.Text2TextGeneration => ["/v1/completions", "/v1/chat/completions"],
            ModelTask.TextClassification => ["/v1/classify", "/v1/score", "/v1/pooling"],
            ModelTask.TokenClassification => ["/v1/token_classification", "/v1/pooling"],
            ModelTask.QuestionAnswering => ["/v1/question_answering"],
            _ => ["/v1/embeddings", "/v1/pooling"],
        };

        /// <summary>What such a model does, to follow "it".</summary>
        public string Does => task switch
        {
            ModelTask.TextGeneration => "continues text",
            ModelTask.Text2TextGeneration => "reads a text and writes another",
            ModelTask.TextClassification => "classifies texts",
            ModelTask.TokenClassification => "tags the words of texts",
            ModelTask.QuestionAnswering => "finds answers in texts",
            ModelTask.FeatureExtraction => "turns texts into vectors",
            _ => "fills in masked words",
        };
    }
}
