namespace PeftServer.Engine.Models;

/// <summary>What a model says about its input.</summary>
public enum PredictionKind
{
    /// <summary>One row of scores for each sequence.</summary>
    Sequence,

    /// <summary>One row of scores for each token.</summary>
    Token,

    /// <summary>Two scores for each token: an answer starts here, and ends here.</summary>
    Span,

    /// <summary>Scores of the vocabulary for each token: what stood there before it was masked.</summary>
    MaskedToken,

    /// <summary>The last hidden state of each token.</summary>
    Features,
}

/// <summary>What a classifier's scores mean, transformers' <c>problem_type</c>.</summary>
public enum ProblemType
{
    /// <summary>One of several labels is right.</summary>
    SingleLabel,

    /// <summary>Any of the labels may be right.</summary>
    MultiLabel,

    /// <summary>The scores are numbers.</summary>
    Regression,
}

/// <summary>A model that reads whole sequences and says something about them or their tokens.</summary>
public abstract class ClassificationModel(PretrainedConfig config, PredictionKind kind) : PretrainedModel(config)
{
    public PredictionKind Kind { get; } = kind;

    /// <summary>What the scores mean: as the config says, else one label of several, or with a single label a number.</summary>
    public ProblemType Problem => Config.Text("problem_type", null!) switch
    {
        "regression" => ProblemType.Regression,
        "multi_label_classification" => ProblemType.MultiLabel,
        "single_label_classification" => ProblemType.SingleLabel,
        null => Kind is PredictionKind.Sequence && Config.LabelCount == 1 ? ProblemType.Regression : ProblemType.SingleLabel,
        var other => throw Config.Unsupported("problem_type", other),
    };

    /// <summary>Tokens a sequence may have. RoBERTa counts its positions from behind that of padding.</summary>
    public int MaxLength => Config.Int("max_position_embeddings", Config.Int("n_positions", 2048)) - (Config.ModelType == "roberta" ? Config.Int("pad_token_id", 1) + 1 : 0);

    /// <summary>[sequences, labels] or [n, width], as <see cref="Kind"/> says.</summary>
    public abstract Tensor Predict(ForwardBatch batch);
}
